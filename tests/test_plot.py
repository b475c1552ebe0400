"""The plot of a run, in its PNG file and in a real window, and the comparison of runs."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import pytest

import graph
from graph import COLUMNS, Grapher

ROOT = Path(graph.__file__).resolve().parent
NO_DISPLAY = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}


def write_run(path, model="relu", rows=40, text="play.txt", sha256="a" * 64, fall=0.1):
    """Write a file of losses as a run would; epochs of 10 rows."""
    about = {"model": model, "text": text, "sha256": sha256, "batch_size": 10, "seq_size": 100}
    lines = ["# " + json.dumps(about), ",".join(COLUMNS), "0,0,,4.2,0.5,,"]
    for row in range(1, rows + 1):
        loss = 1.4 + 2.8 * math.exp(-fall * row)
        validation = f"{loss + 0.05:.6f}" if row % 10 == 0 else ""
        lines.append(f"{100 * row},{row / 10},{loss:.6f},{validation},{2.0 * row},{loss + 0.1:.6f},")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def compare(*words, cwd):
    return subprocess.run([sys.executable, ROOT / "graph.py", *map(str, words)], cwd=cwd, env=NO_DISPLAY,
                          capture_output=True, text=True, timeout=120)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return value


def pixels_of(path, color, tolerance=0.12):
    """Return how many pixels of a picture are of about that colour."""
    wanted = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((abs(matplotlib.image.imread(path)[..., :3] - wanted).max(axis=-1) < tolerance).sum())


def test_a_redraw_updates_the_same_lines_and_shows_the_latest_figures(tmp_path):
    csv = write_run(tmp_path / "relu.csv", rows=20)
    grapher = Grapher(csv)
    grapher.draw()
    lines = list(grapher.axes.lines)
    for rows in (30, 40):
        write_run(csv, rows=rows)
        grapher.draw()
    assert list(grapher.axes.lines) == lines and len(grapher.train.get_xdata()) == 40
    assert list(grapher.validation.get_xdata()) == [0, 1, 2, 3, 4]
    assert grapher.axes.get_title() == "relu on play.txt, epoch 4.0: training 1.451, validation 1.501"
    assert grapher.axes.get_ylabel() == "loss (nats per character)" and grapher.axes.get_xlabel() == "epoch"
    assert pixels_of(tmp_path / "relu.png", graph.COLORS["relu"]) > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["relu.csv", "relu.png"]


def test_a_texts_name_is_no_formula(tmp_path, capsys):
    files = [write_run(tmp_path / f"{n}.csv", text="$_{$.txt", sha256=str(n)) for n in range(2)]
    Grapher(files[0]).draw()
    assert capsys.readouterr().err == "" and (tmp_path / "0.png").exists()
    assert graph.compare(files, tmp_path) == 0  # of two texts, so that the legend names them


def test_redrawing_takes_less_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    grapher, clock, drawn = Grapher(write_run(tmp_path / "relu.csv")), [1000.0], []
    monkeypatch.setattr(graph.time, "monotonic", lambda: clock[0])

    def slow_refresh():
        clock[0] += 0.5
        drawn.append(clock[0])
    monkeypatch.setattr(grapher, "refresh", slow_refresh)
    for _ in range(10_000):
        grapher.update()
        clock[0] += 0.1
    assert len(drawn) > 1 and 0.5 * len(drawn) <= 0.01 * (clock[0] - 1000) + 0.5


def test_the_other_models_curves_on_the_same_text_are_behind_a_run(tmp_path):
    write_run(tmp_path / "tanh.csv", "tanh")
    write_run(tmp_path / "nprnn.csv", "nprnn", sha256="b" * 64)
    grapher = Grapher(write_run(tmp_path / "relu.csv"))
    labels = [line.get_label() for line in grapher.axes.lines]
    assert labels[0] == "tanh, validation" and not any("nprnn" in label for label in labels)


@pytest.fixture
def screen():
    """A virtual screen with a real X server; returns its display and process."""
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed")
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1000x700x24", "-nolisten", "tcp"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        yield ":" + number.readline().strip(), server
    server.kill()
    server.wait()


def start_training(folder, display, *words):
    return subprocess.Popen(
        [sys.executable, ROOT / "relu.py", "--train", ROOT / "data" / "play.txt", "--hidden-size", "32", "--depth", "1",
         "--epochs", "1000", "--batch-size", "2", "--seq-size", "20", "--save-every", "100", "--out", folder, *words],
        env={**NO_DISPLAY, "DISPLAY": display, "MPLBACKEND": "TkAgg"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)


def windows(display):
    found = subprocess.run(["xdotool", "search", "--name", "relu: losses"], env={**NO_DISPLAY, "DISPLAY": display},
                           capture_output=True, text=True)
    return found.stdout.split()


def iterations(folder):
    try:
        return graph.read_csv(folder / "relu.csv")[1]["iteration"][-1]
    except (OSError, LookupError):
        return 0


def assert_it_goes_on(folder):
    seen = iterations(folder)
    wait_for(lambda: iterations(folder) > seen + 200)


@pytest.mark.skipif(not shutil.which("xdotool"), reason="xdotool is not installed")
def test_a_window_follows_the_run_and_training_goes_on_when_it_is_resized_and_closed(screen, tmp_path):
    display, _ = screen
    run = start_training(tmp_path, display)
    try:
        window = wait_for(lambda: windows(display))[0]
        environment = {**NO_DISPLAY, "DISPLAY": display}
        subprocess.run(["xdotool", "windowsize", window, "600", "400"], env=environment, check=True)
        if shutil.which("import"):
            shot = tmp_path / "shot.png"

            def shown():
                subprocess.run(["import", "-window", "root", shot], env=environment, check=True)
                return pixels_of(shot, graph.COLORS["relu"]) > 30
            wait_for(shown)
        assert_it_goes_on(tmp_path)
        subprocess.run(["xdotool", "windowclose", window], env=environment, check=True)
        wait_for(lambda: not windows(display))
        assert_it_goes_on(tmp_path)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 130 and not errors
    finally:
        run.kill()


@pytest.mark.skipif(not shutil.which("xdotool"), reason="xdotool is not installed")
def test_training_goes_on_when_the_display_goes_away(screen, tmp_path):
    display, server = screen
    run = start_training(tmp_path, display)
    try:
        wait_for(lambda: windows(display))
        server.kill()
        assert_it_goes_on(tmp_path)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 130 and "Traceback" not in errors and (tmp_path / "relu.png").exists()
    finally:
        run.kill()


def test_a_display_that_is_not_there_leaves_the_png_file_and_a_line(tmp_path):
    run = start_training(tmp_path, ":987", "--quiet")
    try:
        wait_for(lambda: iterations(tmp_path) > 300)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 130 and (tmp_path / "relu.png").exists()
        assert "Traceback" not in errors and errors.count("\n") <= 1
    finally:
        run.kill()


def test_compare_draws_all_models_and_prints_their_table(tmp_path):
    for number, model in enumerate(graph.COLORS):
        write_run(tmp_path / f"{model}.csv", model, fall=0.1 + 0.02 * number)
    result = compare("--out", tmp_path, cwd=tmp_path)
    assert result.returncode == 0 and not result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *graph.COLORS, "Drawn:"]
    row = dict(zip(lines[0].split(), lines[2].split()))
    assert (row["model"], row["epochs"], row["minutes"], row["char/s"]) == ("relu", "4.0", "1.3", "50,000")
    final = 1.4 + 2.8 * math.exp(-0.12 * 40) + 0.05
    assert row["validation"] == f"{final:.3f}" and row["perplexity"] == f"{math.exp(final):.4g}"
    assert row["bits/char"] == f"{final / math.log(2):.3f}"
    for name in ("train_all.png", "val_all.png"):
        assert all(pixels_of(tmp_path / name, color) > 100 for color in graph.COLORS.values())


def test_compare_leaves_out_files_that_are_not_whole_and_says_why(tmp_path):
    good = write_run(tmp_path / "good.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    content = good.read_text()
    (tmp_path / "cut.csv").write_text(content[:-20])
    (tmp_path / "cut2.csv").write_text(content[:-3])
    (tmp_path / "begun.csv").write_text("\n".join(content.splitlines()[:2]) + "\n")
    bad = ["empty.csv", "other.csv", "binary.csv", "cut.csv", "cut2.csv", "begun.csv", "missing.csv"]
    result = compare(*bad, good, "--out", "drawn", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == bad
    assert "line 43" in result.stderr and result.stdout.splitlines()[1].startswith("relu")
    assert pixels_of(tmp_path / "drawn" / "val_all.png", graph.COLORS["relu"]) > 100


def test_compare_never_mixes_two_texts_without_saying_so(tmp_path):
    one = write_run(tmp_path / "one.csv")
    two = write_run(tmp_path / "two.csv", "tanh", text="other.txt", sha256="b" * 64)
    result = compare(one, two, "--out", "drawn", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("Runs of different texts") and "tanh (other.txt)" in result.stdout


def test_compare_without_any_run_or_folder_to_draw_into_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    result = compare(write_run(tmp_path / "one.csv"), "--out", tmp_path / "file" / "drawn", cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    result = compare("nothing.csv", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
