"""The plot of a run, in its PNG file and in a real window, and the comparison of runs."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backend_bases import NavigationToolbar2, TimerBase

import graph
import relu
from graph import COLUMNS, Grapher

from helpers import ENVIRONMENT, ROOT, TINY, begin, end, linux, start, train, wait_until

NO_DISPLAY = {name: value for name, value in ENVIRONMENT.items() if name != "MPLBACKEND"}


def falling(epoch, to=1.4):
    """Return a loss that falls as training goes on."""
    return to + 2.8 * math.exp(-epoch)


def write_run(path, model="relu", epochs=4.0, loss=falling, **about):
    """Write a file of losses as a run would; 10 rows an epoch, and a validation loss that is 0.05 above the other."""
    about = {"version": graph.VERSION, "model": model, "text": "play.txt", "sha256": "a" * 64, "batch_size": 10,
             "seq_size": 100, "seed": 1, **about}
    lines = ["# " + json.dumps(about), ",".join(COLUMNS), f"0,0,,{loss(0) + 0.05},,0"]
    for row in range(1, round(10 * epochs) + 1):
        validation = f"{loss(row / 10) + 0.05:.6f}" if row % 10 == 0 else ""
        lines.append(f"{100 * row},{row / 10},{loss(row / 10):.6f},{validation},,{2 * row}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pixels_of(picture, color):
    """Return how many pixels of a picture, an array or a file, are of about that colour."""
    picture = picture if isinstance(picture, np.ndarray) else matplotlib.image.imread(picture)[..., :3]
    wanted = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((abs(picture - wanted).max(axis=-1) < 0.12).sum())


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def in_view(axes, epoch, loss):
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return left <= epoch <= right and bottom <= loss <= top


# The plot of a run -----------------------------------------------------------------------------------------------

def test_a_redraw_updates_the_same_lines_and_shows_the_latest_figures(tmp_path):
    csv = write_run(tmp_path / "relu.csv", epochs=2)
    grapher = Grapher(csv)
    grapher.draw()
    lines = list(grapher.axes.lines)
    for epochs in 3, 4:
        write_run(csv, epochs=epochs)
        grapher.draw()
    assert list(grapher.axes.lines) == lines and len(grapher.train.get_xdata()) == 40
    assert list(grapher.validation.get_xdata()) == [0, 1, 2, 3, 4]
    assert "relu on play.txt, epoch 4.0" in grapher.axes.get_title()
    assert {f"train {falling(4):.3f}", f"validation {falling(4) + 0.05:.3f}"} <= set(labels(grapher.axes))
    trend = np.median([falling(3 + n / 10) for n in range(1, 11)])  # over the last epoch; behind it stands the noise
    assert grapher.train.get_ydata()[-1] == pytest.approx(trend)
    assert list(grapher.noise.get_ydata()) == pytest.approx([falling(n / 10) for n in range(1, 41)])
    assert grapher.axes.get_ylabel() == "loss (nats per character)" and grapher.axes.get_xlabel() == "epoch"
    assert pixels_of(tmp_path / "relu.png", graph.COLORS["relu"]) > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["relu.csv", "relu.png"]


def test_the_trend_is_the_median_of_an_epoch_and_of_a_quarter_of_what_has_passed_in_the_first_four(tmp_path):
    epochs, trend = graph.over_an_epoch(graph.read_csv(write_run(tmp_path / "relu.csv", epochs=8, loss=float))[1])
    expected = {0.1: 0.1, 1: 0.9, 2: 1.8, 4: 3.55, 8: 7.55}  # of rows at every tenth of an epoch
    assert {epoch: loss for epoch, loss in zip(epochs, trend) if epoch in expected} == pytest.approx(expected)


def test_what_is_behind_a_run_is_as_far_as_it_is_by_now_and_has_been_validated_in_training(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "REFERENCE", tmp_path / "graphs")
    write_run(tmp_path / "graphs" / "tanh.1.csv", "tanh")
    write_run(tmp_path / "tanh.csv", "tanh", epochs=0.5)
    grapher = Grapher(write_run(tmp_path / "relu.csv"))
    for epochs, label in (0.5, "tanh (reference)"), (2, "tanh"), (3, "tanh"):
        write_run(tmp_path / "tanh.csv", "tanh", epochs=epochs)
        grapher.refresh()
        assert labels(grapher.axes)[2:] == [label] and len(grapher.axes.lines) == 4
    assert list(grapher.axes.lines[3].get_xdata()) == [0, 1, 2, 3]


def test_a_run_is_not_behind_itself_however_its_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "REFERENCE", tmp_path / "graphs")
    write_run(tmp_path / "graphs" / "relu.1.csv")
    monkeypatch.chdir(tmp_path)
    grapher = Grapher(Path("graphs", "relu.1.csv"))
    grapher.refresh()
    assert len(grapher.axes.lines) == 3


def test_a_texts_name_is_no_formula(tmp_path, capsys):
    files = [write_run(tmp_path / f"{n}.csv", text=f"$_{{${n}.txt", sha256=str(n)) for n in range(2)]
    Grapher(files[0]).draw()
    assert capsys.readouterr().err == "" and (tmp_path / "0.png").exists()
    assert graph.compare(files, tmp_path, window=False) == 0  # of two texts, so that the legend names them


def test_settings_of_matplotlib_with_which_nothing_can_be_drawn_do_not_end_a_training(text, tmp_path, capsys):
    with matplotlib.rc_context({"text.usetex": True}), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # so that there is no LaTeX
        train(relu, *TINY, "--epochs", 1, "--train", text, "--out", tmp_path)
    assert f"cannot draw {tmp_path / 'relu.png'}: " in capsys.readouterr().err and (tmp_path / "relu.npz").exists()


def test_redrawing_takes_less_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    grapher, clock, drawn = Grapher(write_run(tmp_path / "relu.csv")), [1000.0], []
    monkeypatch.setattr(graph.time, "monotonic", lambda: clock[0])

    def slow_refresh():
        clock[0] += 0.5
        drawn.append(clock[0])
    monkeypatch.setattr(grapher, "refresh", slow_refresh)
    monkeypatch.setattr(grapher.figure, "savefig", lambda *_, **__: None)
    for _ in range(10_000):
        grapher.update()
        clock[0] += 0.1
    assert len(drawn) > 1 and 0.5 * len(drawn) <= 0.01 * (clock[0] - 1000) + 0.5


def test_a_plot_that_cannot_be_drawn_is_tried_again_every_100_seconds(tmp_path, monkeypatch):
    clock, warnings = [1000.0], []
    monkeypatch.setattr(graph.time, "monotonic", lambda: clock[0])
    grapher = Grapher(tmp_path / "nothing.csv", False, warnings.append)
    for _ in range(1000):
        grapher.update()
        clock[0] += 1
    assert 9 <= len(warnings) <= 11


def test_behind_a_run_are_the_other_models_own_runs_and_else_references_on_the_same_text(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "REFERENCE", tmp_path / "graphs")
    for model in graph.COLORS:
        write_run(tmp_path / "graphs" / f"{model}.1.csv", model, sha256=("b" if model == "stirnn" else "a") * 64)
    write_run(tmp_path / "tanh.csv", "tanh", seq_size=50)
    write_run(tmp_path / "nprnn.csv", "nprnn", sha256="b" * 64)
    grapher = Grapher(write_run(tmp_path / "relu.csv"))
    grapher.refresh()
    behind = labels(grapher.axes)[2:]
    assert behind == ["tanh --seq-size 50", "relu (reference)", "nprnn (reference)"]
    for line, model in zip(grapher.axes.lines[3:], ["tanh", "relu", "nprnn"], strict=True):
        assert (line.get_color(), line.get_linestyle()) == (graph.COLORS[model], "--")
        assert list(line.get_xdata()) == [0, 1, 2, 3, 4]
        assert list(line.get_ydata()) == pytest.approx([falling(epoch) + 0.05 for epoch in range(5)])  # validation
    grapher.axes.set_xlim(0.5, 1)  # a view that is of the run so far
    write_run(tmp_path / "relu.csv", sha256="b" * 64)  # a new run on another text, followed by the same window
    grapher.refresh()
    assert grapher.axes.get_xlim() == (0, 4)
    assert labels(grapher.axes)[2:] == ["stirnn (reference)", "nprnn"] and len(grapher.axes.lines) == 5


def test_a_damaged_file_of_another_run_is_not_behind_a_run_and_a_damaged_reference_names_no_settings(
        tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "REFERENCE", tmp_path / "graphs")
    write_run(tmp_path / "graphs" / "tanh.1.csv", "tanh")
    write_run(tmp_path / "nprnn.csv", "nprnn", seq_size=50)
    for path in tmp_path / "tanh.csv", tmp_path / "graphs" / "nprnn.1.csv":
        path.write_text("damaged")
    grapher = Grapher(write_run(tmp_path / "relu.csv"))
    grapher.refresh()
    assert labels(grapher.axes)[2:] == ["tanh (reference)", "nprnn"]


def spiky(epoch):
    """Return STIRNN's losses: the first are far too high, and now and then there is a spike."""
    return 18 - 100 * epoch if epoch < 0.15 else 9 if epoch in (3.1, 11.7, 12.0) else falling(epoch)


@pytest.mark.parametrize("epochs", [2.0, 20.0])
def test_neither_the_first_steep_fall_nor_spikes_flatten_the_axis(epochs, tmp_path):
    grapher = Grapher(write_run(tmp_path / "relu.csv", epochs=epochs, loss=spiky))
    grapher.refresh()
    assert grapher.axes.get_ylim()[1] < 1.1 * falling(0.1 * epochs)
    later = [epoch for epoch in np.linspace(0.5, epochs, 40) if epoch >= 0.1 * epochs]
    assert all(in_view(grapher.axes, epoch, falling(epoch)) for epoch in later)


def test_a_loss_that_rises_in_the_end_stays_in_view_and_is_the_one_that_is_told(tmp_path):
    grapher = Grapher(write_run(tmp_path / "relu.csv", epochs=20, loss=lambda epoch: falling(epoch) + (epoch > 19.8)))
    grapher.refresh()
    assert in_view(grapher.axes, 20, falling(20) + 1.05) and grapher.axes.get_ylim()[1] < 2.6
    assert {f"train {falling(20) + 1:.3f}", f"validation {falling(20) + 1.05:.3f}"} <= set(labels(grapher.axes))


@pytest.mark.parametrize("loss", [falling, lambda epoch: falling(epoch) + epoch / 9], ids=["falls", "rises"])
def test_the_legend_covers_no_loss(loss, tmp_path):
    grapher = Grapher(write_run(tmp_path / "relu.csv", epochs=20, loss=loss))
    grapher.draw()
    box = grapher.axes.get_legend().get_window_extent()
    for line in grapher.train, grapher.validation:
        assert not box.count_contains(grapher.axes.transData.transform(line.get_xydata()))


@pytest.mark.parametrize("losses", [(1e12, 3643, 1.9, 1.7, 1.6), (1.9, 1.7, 1.6, 3643, 99)], ids=["first", "last"])
def test_a_short_run_with_few_rows_is_not_flattened_by_two_that_are_spikes(losses):
    axes = graph.new_axes(matplotlib.figure.Figure())
    epochs = np.arange(1.0, 6)
    graph.fit(axes, [(epochs, np.array(losses)), (epochs, np.array([2.1, 1.9, 1.7, 1.6, 1.5]))])
    assert axes.get_ylim()[0] < 1.5 and 1.9 < axes.get_ylim()[1] < 3


@pytest.mark.parametrize("epochs", [0, 0.1, 0.2])
def test_a_run_that_has_just_begun_shows_all_of_its_fall_each_point_of_it(epochs, tmp_path):
    grapher = Grapher(write_run(tmp_path / "relu.csv", epochs=epochs))
    grapher.refresh()
    low, high = grapher.axes.get_ylim()
    assert 0.25 < high - low < 2 and in_view(grapher.axes, 0, falling(0) + 0.05)
    assert grapher.train.get_marker() == "." or len(grapher.train.get_xdata()) != 1


@pytest.mark.parametrize("epochs", [0, 0.1, 0.2, 0.5, 1, 3])
@pytest.mark.parametrize("loss", [falling, lambda epoch: 3 + epoch], ids=["falling", "rising"])
def test_the_latest_losses_are_always_in_view(epochs, loss, tmp_path):
    grapher = Grapher(write_run(tmp_path / "relu.csv", epochs=epochs, loss=loss))
    grapher.refresh()
    for line in grapher.train, grapher.noise, grapher.validation:
        if len(line.get_xdata()) and line.get_xdata()[-1] >= 0.1 * epochs:
            assert in_view(grapher.axes, line.get_xdata()[-1], line.get_ydata()[-1])


def test_a_view_that_the_user_has_chosen_stays_until_it_is_set_back(tmp_path):
    csv = write_run(tmp_path / "relu.csv", epochs=2)
    figure = matplotlib.figure.Figure()
    toolbar = figure.canvas.toolbar = NavigationToolbar2(figure.canvas)
    grapher = Grapher(csv, figure=figure)
    for epochs in 2, 4, 6:  # more than once: the button goes back to the newest view of all, not to the first
        write_run(csv, epochs=epochs)
        grapher.refresh()
        assert grapher.axes.get_xlim() == (0, epochs)
        if toolbar._nav_stack() is None:  # as the buttons of Matplotlib's windows do it
            toolbar.push_current()
        grapher.axes.set(xlim=(0.5, 1), ylim=(1.8, 2.2))
        toolbar.push_current()
        write_run(csv, epochs=epochs + 1)
        grapher.refresh()
        assert grapher.axes.get_xlim() == (0.5, 1) and grapher.axes.get_ylim() == (1.8, 2.2)
        assert grapher.train.get_xdata()[-1] == epochs + 1
        toolbar.home()
        grapher.refresh()
        assert grapher.axes.get_xlim() == (0, epochs + 1)


@pytest.mark.parametrize("chosen", [{"xlim": (0.5, 1)}, {"ylim": (1.8, 2.2)}], ids=str)
def test_a_view_that_was_chosen_along_one_axis_only_stays_too(chosen, tmp_path):
    csv = write_run(tmp_path / "relu.csv", epochs=2)
    grapher = Grapher(csv)
    grapher.refresh()
    grapher.axes.set(**chosen)
    before = grapher.axes.get_xlim(), grapher.axes.get_ylim()
    write_run(csv, epochs=4)
    grapher.refresh()
    assert (grapher.axes.get_xlim(), grapher.axes.get_ylim()) == before


# Its window ------------------------------------------------------------------------------------------------------

def test_the_window_opens_once_and_not_before_there_is_a_first_curve(tmp_path, monkeypatch):
    opened, warnings = [], []
    monkeypatch.setattr(graph, "open_window", opened.append)
    grapher = Grapher(tmp_path / "relu.csv", True, warnings.append)
    grapher.draw()
    assert not opened and len(warnings) == 1
    write_run(tmp_path / "relu.csv")
    grapher.draw()
    grapher.draw()
    assert opened == [tmp_path / "relu.csv"] and len(warnings) == 1


def test_a_window_that_cannot_be_opened_is_told_of_once_and_the_plot_is_drawn_on(tmp_path, monkeypatch):
    def open_window(csv):
        raise OSError("no more processes")
    warnings = []
    monkeypatch.setattr(graph, "open_window", open_window)
    grapher = Grapher(write_run(tmp_path / "relu.csv"), True, warnings.append)
    for epochs in 4, 5, 6:
        write_run(tmp_path / "relu.csv", epochs=epochs)
        grapher.draw()
    assert warnings == [f"cannot draw {tmp_path / 'relu.png'}: no more processes"]
    assert grapher.train.get_xdata()[-1] == 6


@linux
@pytest.mark.parametrize("screens", [[], ["DISPLAY"], ["WAYLAND_DISPLAY"]], ids=str)
def test_a_window_is_opened_where_there_is_a_screen_of_either_kind(screens, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: opened.append(command[1:]))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("WAYLAND_DISPLAY", "")  # an empty one is none
    for name in screens:
        monkeypatch.setenv(name, "wayland-0")
    graph.open_window(tmp_path / "relu.csv")
    assert opened == [[graph.__file__, "--watch", tmp_path / "relu.csv"] for _ in screens]


def test_training_opens_a_window_unless_it_is_told_not_to(text, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(graph, "open_window", opened.append)
    small = ["--train", text, "--hidden-size", 8, "--depth", 1, "--epochs", 1, "--seq-size", 20]
    train(relu, *small, "--out", tmp_path / "with")
    train(relu, *small, "--out", tmp_path / "without", "--no-window")
    assert opened == [tmp_path / "with" / "relu.csv"]


@pytest.fixture
def screen(tmp_path):
    """A virtual screen with a real X server, which draws into a file; returns its display and process."""
    for program in "Xvfb", "xdotool":
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    read, write = os.pipe()
    (tmp_path / "screen").mkdir()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1000x700x24", "-nolisten", "tcp",
                               "-fbdir", tmp_path / "screen",
                               "-noreset"],  # else it starts anew, and refuses a window meanwhile, when xdotool goes
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        yield ":" + number.readline().strip(), server
    server.kill()
    server.wait()


def picture(folder):
    """Return what is on the virtual screen, as an array of red, green and blue from 0 to 1."""
    content = (folder / "screen" / "Xvfb_screen0").read_bytes()[-4 * 1000 * 700:]
    return np.frombuffer(content, np.uint8).reshape(700, 1000, 4)[..., 2::-1] / 255


def start_training(folder, display, *words, **keywords):
    return begin("relu", "--train", ROOT / "data" / "play.txt", "--hidden-size", 32, "--depth", 1, "--epochs", 1000,
                 "--batch-size", 2, "--seq-size", 20, "--save-every", 100, "--out", folder, *words,
                 env={**NO_DISPLAY, "DISPLAY": display}, **keywords)


def watch(csv, display=None, **environment):
    display = {"DISPLAY": display} if display else {}
    return start([ROOT / "graph.py", "--watch", csv], env={**NO_DISPLAY, **display, **environment})


def xdotool(display, *words):
    return subprocess.run(["xdotool", *words], env={**NO_DISPLAY, "DISPLAY": display}, capture_output=True, text=True)


def windows(display, model="relu"):
    return set(xdotool(display, "search", "--onlyvisible", "--name", f"{model}: losses").stdout.split())


def assert_it_goes_on(folder):
    def iterations():
        return graph.read_csv(folder / "relu.csv")[1]["iteration"][-1]
    seen = iterations()
    wait_until(lambda: iterations() > seen + 200)


def interrupt(run):
    """Stop a training; return its errors."""
    run.send_signal(signal.SIGINT)
    return end(run, status=130)[1]


def test_a_window_follows_the_run_and_training_goes_on_when_it_is_resized_and_closed(screen, tmp_path):
    display, _ = screen
    run = start_training(tmp_path, display)
    window, = wait_until(lambda: windows(display))
    assert graph.read_csv(tmp_path / "relu.csv")[1]["validation_loss"][0] > 0
    xdotool(display, "windowsize", window, "600", "400")
    wait_until(lambda: pixels_of(picture(tmp_path), graph.COLORS["relu"]) > 30)
    assert_it_goes_on(tmp_path)
    xdotool(display, "windowclose", window)
    wait_until(lambda: not windows(display))
    assert_it_goes_on(tmp_path)
    assert not windows(display) and not interrupt(run)


def test_new_losses_are_seen_in_a_window_that_nobody_touches(screen, tmp_path):
    watch(write_run(tmp_path / "relu.csv", epochs=2), screen[0])
    wait_until(lambda: pixels_of(picture(tmp_path), graph.COLORS["relu"]) > 30)

    def at_rest():
        before = picture(tmp_path)
        time.sleep(1)
        return (picture(tmp_path) == before).all()
    wait_until(at_rest)
    before = picture(tmp_path)
    write_run(tmp_path / "relu.csv", epochs=4)
    wait_until(lambda: (picture(tmp_path) != before).any())


def test_a_comparison_opens_both_its_figures_and_says_that_they_are_waited_for(screen, tmp_path):
    environment = {**NO_DISPLAY, "DISPLAY": screen[0]}
    comparison = start([ROOT / "graph.py", write_run(tmp_path / "relu.csv"), "--out", tmp_path], env=environment)
    for title in "Training loss", "Validation loss":
        wait_until(lambda title=title: xdotool(screen[0], "search", "--onlyvisible", "--name", title).stdout)
    assert comparison.poll() is None
    comparison.send_signal(signal.SIGINT)  # which ends it without a traceback
    output, errors = end(comparison, status=-signal.SIGINT)
    assert output.endswith("Close the windows to end.\n") and not errors
    end(start([ROOT / "graph.py", tmp_path / "relu.csv", "--out", tmp_path, "--no-window"], env=environment))


def test_training_goes_on_when_the_display_goes_away(screen, tmp_path):
    display, server = screen
    run = start_training(tmp_path, display)
    wait_until(lambda: windows(display))
    server.kill()
    assert_it_goes_on(tmp_path)
    assert not interrupt(run) and (tmp_path / "relu.png").exists()


def test_a_window_outlives_its_training_and_ctrl_c_but_gives_way_to_a_newer_one_of_its_run(screen, tmp_path):
    display, _ = screen
    run = start_training(tmp_path, display, start_new_session=True)
    first = wait_until(lambda: windows(display))
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    end(run, status=130)
    other = watch(write_run(tmp_path / "tanh.csv", "tanh"), display)
    wait_until(lambda: windows(display, "tanh"))
    assert windows(display) == first
    newer = watch(tmp_path / "relu.csv", display)
    wait_until(lambda: windows(display) and not windows(display) & first)
    time.sleep(1)  # twice as long as a window takes to notice a newer one
    assert newer.poll() is None and other.poll() is None


def test_a_window_stays_open_where_it_cannot_note_that_it_is_the_newest(screen, tmp_path):
    (tmp_path / "relu.window").write_text("1")  # of a window that was killed, or is another user's
    (tmp_path / "relu.window.tmp").mkdir()  # as if the folder could only be read
    window = watch(write_run(tmp_path / "relu.csv"), screen[0])
    wait_until(lambda: windows(screen[0]))
    time.sleep(1)  # twice as long as a window takes to notice a newer one
    assert window.poll() is None and windows(screen[0])


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Return a function that watches relu.csv in this process; an action takes the place of the window's main loop.

    It is called with the function that the window's timer calls, and with a clock.
    """
    from matplotlib import pyplot
    follow, clock = [], [1000.0]
    monkeypatch.setattr(graph, "figure_in_window", pyplot.figure)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(TimerBase, "add_callback", lambda timer, function: follow.append(function))
    monkeypatch.setattr(graph.time, "monotonic", lambda: clock[0])

    def watch(action):
        monkeypatch.setattr(pyplot, "show", lambda: action(follow[0], clock))
        graph.watch(write_run(tmp_path / "relu.csv"))
        pyplot.close("all")
    return watch


@pytest.mark.parametrize("newer", [None, "1"])
def test_a_window_that_closes_leaves_no_file_behind_unless_it_is_of_a_newer_one(newer, watched, tmp_path):
    note = tmp_path / "relu.window"

    def show(follow, clock):
        assert note.read_text() == str(os.getpid())
        if newer:
            note.write_text(newer)
    watched(show)
    assert note.exists() == (newer is not None)


def test_a_window_shows_new_losses_within_seconds_and_draws_for_3_percent_of_the_time_at_most(
        watched, tmp_path, monkeypatch):
    drawn = []

    def show(follow, clock):
        def refresh(grapher):
            clock[0] += 0.2
            drawn.append(clock[0])
        monkeypatch.setattr(Grapher, "refresh", refresh)
        for second in range(130):
            clock[0] += 1
            if second < 100:  # later nothing is new any more
                os.utime(write_run(tmp_path / "relu.csv"), ns=(0, int(clock[0] * 1e9)))
                before = len(drawn)
            follow()
        assert len(drawn) <= before + 1
    watched(show)
    assert 0.2 / 0.035 < max(np.diff(drawn)) < 8 and len(drawn) > 10


def test_a_window_misses_no_losses_that_are_written_while_it_draws_and_outlives_a_damaged_file(
        watched, tmp_path, monkeypatch):
    csv, drawn, plain = tmp_path / "relu.csv", [], Grapher.refresh

    def refresh(grapher):
        plain(grapher)
        drawn.append(grapher.train.get_xdata()[-1])
        if len(drawn) == 1:
            os.utime(write_run(csv, epochs=5), ns=(0, 1))

    def show(follow, clock):
        for content in None, "damaged":
            if content:
                csv.write_text(content)
            clock[0] += 1000
            follow()
    monkeypatch.setattr(Grapher, "refresh", refresh)
    watched(show)
    assert drawn == [4, 5]


@linux  # elsewhere a window needs no DISPLAY
@pytest.mark.parametrize("backend", ["", "Agg", "svg", "TkAgg"])
def test_why_there_is_no_window_is_told_in_a_line(backend, tmp_path):
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    _, errors = end(watch(write_run(tmp_path / "relu.csv"), ":987", MPLBACKEND=backend), status=1)
    why = f"MPLBACKEND={backend}, DISPLAY=:987" if backend else "DISPLAY=:987"
    assert errors == f"No window: Matplotlib opens none with {why}. The plot is in {tmp_path / 'relu.png'}\n"


def test_a_backend_that_is_not_installed_opens_no_window(monkeypatch):
    monkeypatch.setattr("matplotlib.pyplot.figure", mock.Mock(side_effect=ImportError("no Qt")))
    assert graph.figure_in_window("losses") is None


@linux
def test_a_display_that_is_not_there_leaves_the_png_file_and_a_line(tmp_path):
    run = start_training(tmp_path, ":987", "--quiet")
    wait_until(lambda: (tmp_path / "relu.png").exists())
    assert_it_goes_on(tmp_path)
    errors = interrupt(run)
    assert errors.startswith("No window: ") and errors.count("\n") == 1


def test_a_word_that_is_no_option_is_told_in_a_line():
    output, errors = end(start([ROOT / "graph.py", "--wach", "relu.csv"], env=NO_DISPLAY), 2)
    assert (output, errors) == ("", "graph.py: unrecognized arguments: --wach; --help lists all options\n")


def test_what_is_not_there_cannot_be_watched(tmp_path):
    _, errors = end(watch(tmp_path / "nothing.csv"), status=1)
    assert "nothing.csv" in errors and errors.count("\n") == 1


# Comparison ------------------------------------------------------------------------------------------------------

def table(output):
    """Return the rows of the table that is printed, as dicts."""
    assert all(len(line) <= 80 or line.startswith(("/", "Drawn")) for line in output.splitlines())
    output = re.sub(r"(?m)^(\S.*)\n +", r"\1 ", output)  # a long name has a line of its own
    lines = [line.replace(" ±", "±").split() for line in output.splitlines()]
    head, *rows = lines[[words[0] for words in lines].index("model"):-1]
    figures = len(head) - 1  # the rest of a row is a name, of as many words as it has
    return [dict(zip(head, [" ".join(words[:-figures]), *words[-figures:]])) for words in rows]


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys, quick_pictures):
    """Return a function that compares runs and returns status, table, errors, and the axes of both figures.

    The project's references are in tmp_path / "graphs", the user's own runs in tmp_path / "runs".
    """
    figures = []

    class Kept(matplotlib.figure.Figure):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            figures.append(self)
    monkeypatch.setattr(matplotlib.figure, "Figure", Kept)
    monkeypatch.setattr(graph, "REFERENCE", tmp_path / "graphs")

    def compared(*files):
        capsys.readouterr()
        status = graph.compare(list(files), tmp_path / "runs", window=False)
        output, errors = capsys.readouterr()
        return status, table(output), errors, *[figure.axes[0] for figure in figures[-2:]]
    return compared


def test_compare_draws_all_models_and_prints_their_table(tmp_path):
    for number, model in enumerate(graph.COLORS):
        write_run(tmp_path / f"{model}.csv", model, loss=lambda epoch, to=1.4 + number / 10: falling(epoch, to))
    output, errors = end(start([ROOT / "graph.py", "--out", tmp_path, "--no-window"], env=NO_DISPLAY))
    rows = table(output)
    assert not errors and [row["model"] for row in rows] == list(graph.COLORS)
    final = falling(4, 1.5) + 0.05
    expected = {"model": "relu", "epochs": "4.0", "validation": f"{final:.3f}", "best": f"{final:.3f}",
                "ppl": f"{math.exp(final):.3f}", "bits": f"{final / math.log(2):.3f}", "minutes": "1.3",
                "char/s": "50,000"}
    assert expected.items() <= rows[1].items()
    assert output.splitlines()[-1].startswith("Drawn: ")
    for name in "train_all.png", "val_all.png":
        assert all(pixels_of(tmp_path / name, color) > 100 for color in graph.COLORS.values())


def test_without_words_the_runs_in_runs_are_drawn_there_and_the_status_tells_that_one_was_left_out(tmp_path):
    write_run(tmp_path / "runs" / "relu.csv")
    (tmp_path / "runs" / "tanh.csv").write_text("")
    _, errors = end(start([ROOT / "graph.py", "--no-window"], cwd=tmp_path, env=NO_DISPLAY), status=2)
    assert errors.startswith(f"{Path('runs', 'tanh.csv')} is left out: ") and errors.count("\n") == 1
    assert {path.name for path in (tmp_path / "runs").glob("*.png")} == {"train_all.png", "val_all.png"}


@linux
def test_a_table_that_a_full_disk_does_not_take_is_told_once_and_by_the_status_and_the_figures_are_drawn(tmp_path):
    write_run(tmp_path / "relu.csv")
    with open("/dev/full", "w") as full:
        process = start([ROOT / "graph.py", "--out", tmp_path, "--no-window"], env=NO_DISPLAY, stdout=full)
        assert end(process, status=1)[1] == "cannot print: No space left on device\n"
    assert {path.name for path in tmp_path.glob("*.png")} == {"train_all.png", "val_all.png"}


def test_each_figure_has_the_title_and_the_file_of_its_curves(compare, tmp_path):
    _, _, _, train, validation = compare(write_run(tmp_path / "relu.csv"))
    for axes, title, name, points in ((train, "Training loss", "train_all", 40),
                                      (validation, "Validation loss", "val_all", 5)):
        assert axes.get_title().startswith(title) and len(axes.lines[0].get_xdata()) == points
        assert (tmp_path / "runs" / f"{name}.png").read_bytes().startswith(f"{axes.get_title()}, 120 dpi".encode())


def test_runs_that_differ_in_their_seed_only_are_one_curve_of_means_with_a_band_and_one_row(compare, tmp_path):
    ends = [1.4, 1.5, 1.9]
    files = [write_run(tmp_path / f"{seed}.csv", seed=seed, loss=lambda epoch, to=to: falling(epoch, to))
             for seed, to in enumerate(ends)]
    files.append(write_run(tmp_path / "wide.csv", seed=1, batch_size=20))
    status, rows, _, *both = compare(*files)
    finals = [falling(4, to) + 0.05 for to in ends]
    assert status == 0 and len(rows) == 2
    assert rows[0]["validation"] == f"{np.mean(finals):.3f}±{(finals[2] - finals[0]) / 2:.3f}"
    assert rows[1]["validation"] == f"{falling(4) + 0.05:.3f}"
    for axes in both:
        band = axes.collections[0].get_paths()[0].vertices
        for epoch, loss in zip(*axes.lines[0].get_data()):
            edges = band[np.isclose(band[:, 0], epoch), 1]
            assert [edges.min() - loss, edges.max() - loss] == pytest.approx([-0.2, 0.3])
        assert len(axes.lines) == 2 and len(set(labels(axes))) == 2
    assert list(both[1].lines[0].get_ydata()) == pytest.approx([falling(epoch, 1.6) + 0.05 for epoch in range(5)])


def test_the_table_tells_of_a_run_that_was_stopped_what_it_was_at_its_last_validation(compare, tmp_path):
    whole, stopped, new = (write_run(tmp_path / f"{epochs}.csv", epochs=epochs) for epochs in (2, 2.5, 0.5))
    assert compare(stopped)[1] == compare(whole)[1]
    status, rows, errors, *_ = compare(whole, new)
    assert status == 2 and len(rows) == 1
    assert errors == f"{new} is left out: it has not been validated in training yet\n"


def test_the_table_ends_with_the_last_validation_where_that_is_an_early_one_too(compare, tmp_path):
    tables = []
    for epochs in 0.3, 0.8:
        path = write_run(tmp_path / "relu.csv", epochs=epochs)
        path.write_text(re.sub(r"(?m)^(300,.*),,,6$", r"\1,3.5,,6", path.read_text()))
        tables.append(compare(path)[1])
    assert tables[0] == tables[1] and tables[0][0]["epochs"] == "0.3"


def test_losses_that_have_exploded_and_a_round_perplexity_fit_the_table_and_the_plot(compare, tmp_path):
    csv = write_run(tmp_path / "relu.csv", loss=lambda epoch: 1.0234e10 if epoch > 3 else 2)
    for final, perplexity in ("1000", "1.014e+304"), ("1.435085", "4.200"):  # the first is beyond all numbers: e^700
        csv.write_text(re.sub(r"[\d.]+(?=,,80$)", final, csv.read_text(), flags=re.M))
        rows = compare(csv)[1]
        assert rows[0]["train"] == "1.023e+10" and rows[0]["ppl"] == perplexity
    grapher = Grapher(csv)
    grapher.refresh()
    assert "train 1.023e+10" in labels(grapher.axes)


def test_runs_whose_rows_are_at_other_epochs_are_averaged_at_the_same_epochs(compare, tmp_path):
    files = [write_run(tmp_path / f"{seed}.csv", seed=seed, loss=lambda epoch: 3 - epoch / 10) for seed in range(2)]
    about, names, first, *rows = files[1].read_text().splitlines(keepends=True)
    files[1].write_text("".join([about, names, first, *rows[1::2]]))  # every second row, as a published file may have
    _, _, _, train, _ = compare(*files)
    epochs, losses = train.lines[0].get_data()
    assert len(epochs) == 40 and np.ptp(train.collections[0].get_paths()[0].vertices[:, 0]) > 3
    assert losses[20:] == pytest.approx(graph.over_an_epoch(graph.read_csv(files[0])[1])[1][20:], abs=0.02)


def test_a_name_that_the_terminal_cannot_show_is_shown_with_question_marks(tmp_path):
    files = [write_run(tmp_path / f"{seed}.csv", seed=seed, text="ö.txt") for seed in range(2)]
    environment = {**NO_DISPLAY, "PYTHONIOENCODING": "ascii"}
    output, errors = end(start([ROOT / "graph.py", *files, "--out", tmp_path, "--no-window"], env=environment))
    assert "relu ?2" in output and not errors


def test_own_runs_stand_out_from_references_which_end_with_the_longest_of_them(compare, tmp_path):
    write_run(tmp_path / "runs" / "relu.csv", epochs=3)
    write_run(tmp_path / "runs" / "tanh.csv", "tanh", epochs=5)
    for model in graph.COLORS:
        for seed in 1, 2:
            write_run(tmp_path / "graphs" / f"{model}.{seed}.csv", model, epochs=20, seed=seed)
    write_run(tmp_path / "graphs" / "nprnn.3.csv", "nprnn", epochs=20, batch_size=20)
    write_run(tmp_path / "graphs" / "nprnn.4.csv", "nprnn", sha256="b" * 64)  # of another text
    status, rows, errors, *both = compare()
    names = [row["model"] for row in rows]
    assert (status, errors) == (0, "") and names[:5] == ["tanh", "relu", *[f"{model} ×2 (reference)" for model in
                                                                           ("tanh", "relu", "stirnn")]]
    assert names[5:] == ["nprnn ×2 (reference)", "nprnn --batch-size 20 (reference)"]
    for axes in both:
        own, references = axes.lines[:2], axes.lines[2:]
        assert labels(axes) == names and axes.get_xlim() == (0, 5)
        assert all(line.get_alpha() in (None, 1) for line in own) and all(line.get_alpha() < 0.6 for line in references)
        assert min(line.get_linewidth() for line in own) > max(line.get_linewidth() for line in references)


def test_an_own_run_and_the_reference_of_its_model_have_one_colour(compare, tmp_path):
    for path in tmp_path / "runs" / "relu.csv", tmp_path / "graphs" / "relu.1.csv":
        write_run(path)
    for axes in compare()[3:]:
        assert [line.get_color() for line in axes.lines] == [graph.COLORS["relu"]] * 2


def test_settings_that_are_not_the_references_are_named(compare, tmp_path):
    for model, share in ("relu", 0.3), ("tanh", 0.4):
        path = write_run(tmp_path / "graphs" / f"{model}.1.csv", model, share=share, hidden_size=256)
        path.write_text(path.read_text().replace('"seed": 1', '"seed": 1, "epochs": 100'))
    own = [write_run(tmp_path / "1.csv", share=0.3, hidden_size=64, seed=7),
           write_run(tmp_path / "2.csv", "tanh", share=0.4, hidden_size=256),
           write_run(tmp_path / "3.csv", "tanh", share=0.3, hidden_size=128),
           write_run(tmp_path / "4.csv", "stirnn", hidden_size=128)]  # without a reference
    own[0].write_text(own[0].read_text().replace('"seed": 7', '"seed": 7, "epochs": 4'))
    *_, train, validation = compare(*own)
    for axes in train, validation:
        assert labels(axes) == ["relu --hidden-size 64", "tanh", "tanh --share 0.3 --hidden-size 128", "stirnn"]


def test_runs_of_several_numbers_of_epochs_are_not_averaged_as_their_rates_fall_otherwise(compare, tmp_path):
    files = [write_run(tmp_path / f"{epochs}.csv", epochs=epochs) for epochs in (2, 4)]
    for path in files:
        path.write_text(path.read_text().replace('"seed": 1', f'"seed": 1, "epochs": {path.stem}'))
    _, rows, *_ = compare(*files)
    assert {row["model"]: row["epochs"] for row in rows} == {str(tmp_path / "2"): "2.0", str(tmp_path / "4"): "4.0"}


def test_runs_that_are_told_by_their_files_have_names_of_their_own_with_a_dot_and_without_csv_too(compare, tmp_path):
    files = [write_run(tmp_path / f"relu.{name}", dropout=share) for name, share in (("old", 0.1), ("new.csv", 0.2))]
    assert [row["model"] for row in compare(*files)[1]] == [str(tmp_path / f"relu.{name}") for name in ("old", "new")]


def test_a_reference_that_is_given_by_a_relative_path_is_one(compare, tmp_path, monkeypatch):
    for folder in "runs", "graphs":
        write_run(tmp_path / folder / "relu.1.csv")
    monkeypatch.chdir(tmp_path)
    _, rows, *_ = compare(Path("runs/relu.1.csv"), Path("graphs/relu.1.csv"))
    assert [row["model"] for row in rows] == ["relu", "relu (reference)"]


def test_an_own_run_on_a_text_with_the_name_of_a_reference_stands_out_too(compare, tmp_path):
    *_, train, validation = compare(write_run(tmp_path / "1.csv", text="my (reference)", sha256="b" * 64),
                                    write_run(tmp_path / "2.csv"))
    for axes in train, validation:
        assert labels(axes)[0] == "relu on my (reference)" and {line.get_alpha() for line in axes.lines} <= {None, 1}


def test_references_on_the_text_of_any_own_run_are_drawn_and_no_others(compare, tmp_path):
    for name, sha256 in ("runs/tanh.csv", "b"), ("runs/relu.csv", "a"), ("graphs/relu.1.csv", "a"):
        write_run(tmp_path / name, Path(name).name.split(".")[0], sha256=sha256 * 64)
    write_run(tmp_path / "graphs" / "stirnn.1.csv", "stirnn", sha256="c" * 64)
    models = [row["model"].partition(" on ")[0] for row in compare()[1]]
    assert models == ["tanh", "relu", "relu"]
    given = compare(tmp_path / "runs" / "relu.csv", tmp_path / "graphs" / "stirnn.1.csv")[1]
    assert [row["model"].partition(" on ")[0] for row in given] == ["relu", "stirnn"]


def test_references_alone_are_drawn_as_any_other_runs(compare, tmp_path):
    for model in "relu", "tanh":
        write_run(tmp_path / "graphs" / f"{model}.1.csv", model)
    _, rows, _, *both = compare()
    assert [row["model"] for row in rows] == ["tanh", "relu"]
    for axes in both:
        assert labels(axes) == ["tanh", "relu"] and {line.get_alpha() for line in axes.lines} <= {None, 1}


def test_runs_of_one_model_with_several_settings_have_colours_of_their_own(compare, tmp_path):
    files = [write_run(tmp_path / f"{share}.csv", dropout=share) for share in (0, 0.1, 0.2)]
    *_, train, validation = compare(*files, write_run(tmp_path / "tanh.csv", model="tanh"))
    for axes in train, validation:
        colors = [line.get_color() for line in axes.lines]
        assert len(set(colors)) == 4 and (colors[0], colors[3]) == (graph.COLORS["relu"], graph.COLORS["tanh"])


def test_in_a_comparison_spikes_flatten_no_axis(compare, tmp_path):
    _, _, _, train, validation = compare(write_run(tmp_path / "relu.csv", epochs=20, loss=spiky))
    assert train.get_ylim()[1] < 4.2 and validation.get_ylim()[1] < 4.2
    assert max(loss for epoch, loss in zip(*train.lines[0].get_data()) if epoch > 1) < 4.2


def test_the_best_loss_is_the_mean_of_the_lowest_ones_and_not_of_the_last_whose_range_is_told(compare, tmp_path):
    files = [write_run(tmp_path / f"{rise}.csv", seed=rise, loss=lambda epoch, rise=rise: rise * (9 + abs(epoch - 2)))
             for rise in (0.1, 0.2)]  # both overfit
    _, (row,), *_ = compare(*files)
    assert (row["best"], row["validation"]) == ("1.400", "1.700±0.550")


def test_a_pause_changes_neither_the_minutes_nor_the_speed_of_the_table(compare, tmp_path):
    run = write_run(tmp_path / "relu.csv", epochs=5)
    _, (before,), *_ = compare(run)
    *lines, last = run.read_text().splitlines(keepends=True)
    cells = last.rstrip().split(",")
    run.write_text("".join([*lines, ",".join([*cells[:-1], "7200"]) + "\n"]))  # the computer slept for two hours
    _, (after,), *_ = compare(run)
    assert after == before


def test_the_speed_of_a_run_of_two_epochs_is_that_of_its_median_epoch_and_of_a_shorter_one_that_of_all_of_it():
    columns = {"epoch": [0, 0.5, 1, 1.5, 2], "iteration": [0, 50, 100, 150, 200], "seconds": [0, 1, 2, 4, 6]}
    columns = {name: np.array(values) for name, values in columns.items()}
    assert graph.updates_per_second(columns) == pytest.approx((50 + 25) / 2)
    assert graph.updates_per_second({name: values[:4] for name, values in columns.items()}) == 150 / 4


def test_compare_leaves_out_files_that_are_not_whole_and_says_why(compare, tmp_path):
    good = write_run(tmp_path / "good.csv")
    content = good.read_text()
    about, names, *rows = content.splitlines(keepends=True)
    contents = {"empty": "", "other": "a,b\n1,2\n", "binary": "\udcff\udcfe", "cut": content[:-7],
                "cut2": content[:-1], "begun": about + names, "header": about,
                "earlier": content.replace(f'"version": {graph.VERSION}', f'"version": {graph.VERSION - 1}'),
                "foreign": content.replace('"batch_size": 10, ', ""), "list": "# []\n" + names + "".join(rows),
                "short": content.replace(rows[7], rows[7].rpartition(",")[0] + "\n"),
                "words": content.replace(rows[7], "no losses\n"),
                "columns": content.replace("penalty", "batch_loss"), "beheaded": about + names + "".join(rows[1:]),
                "holed": content.replace(rows[7], ",".join([*rows[7].split(",")[:2], "", *rows[7].split(",")[3:]]))}
    bad = [tmp_path / f"{name}.csv" for name in contents]
    for path, changed in zip(bad, contents.values()):
        assert changed != content
        path.write_bytes(changed.encode(errors="surrogateescape"))
    bad += [write_run(tmp_path / "young.csv", epochs=0), tmp_path / "missing.csv"]
    status, rows, errors, *_ = compare(*bad, good)
    assert status == 2 and [row["model"] for row in rows] == ["relu"]
    assert [re.match(r"(.*) is left out: .", line)[1] for line in errors.splitlines()] == list(map(str, bad))
    assert errors.count("line 43 is damaged") == errors.count("line 10 is damaged") == 2
    assert "codec" not in errors and "byte" not in errors


def test_compare_never_mixes_two_texts_without_saying_so(compare, tmp_path, capsys):
    files = [write_run(tmp_path / "one.csv"), write_run(tmp_path / "two.csv", text="other.txt", sha256="b" * 64)]
    status, rows, _, train, _ = compare(*files)
    assert status == 0 and [row["model"] for row in rows] == labels(train) == ["relu on play.txt", "relu on other.txt"]
    twice = [write_run(tmp_path / f"{seed}.csv", text="book (1).txt", sha256="c" * 64, seed=seed) for seed in range(2)]
    assert labels(compare(*twice, *files)[3])[0] == "relu on book (1).txt ×2"
    others = [write_run(tmp_path / name / "relu.csv", sha256=name, seed=2) for name in "ab"]  # of one name
    assert [row["model"] for row in compare(*others)[1]] == [f"{path.with_suffix('')} on play.txt" for path in others]
    graph.compare(files, tmp_path, window=False)
    assert capsys.readouterr().out.startswith("Runs of different texts")


def test_compare_without_any_run_or_folder_to_draw_into_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    words = [[write_run(tmp_path / "one.csv"), "--out", tmp_path / "file" / "drawn"], [tmp_path / "nothing.csv"]]
    (_, unwritable), (_, nothing) = [end(process, status=2) for process in
                                     [start([ROOT / "graph.py", *these], env=NO_DISPLAY) for these in words]]
    assert unwritable.count("\n") == 1 and str(tmp_path / "file") in unwritable
    assert "nothing.csv is left out" in nothing and "python relu.py are in runs/relu.csv" in nothing


def test_the_training_loss_of_the_table_is_the_median_over_the_last_epoch(compare, tmp_path):
    def loss(epoch):
        return 9 if epoch == 4 else falling(epoch)  # a spike at the very end
    _, rows, *_ = compare(write_run(tmp_path / "relu.csv", loss=loss))
    assert rows[0]["train"] == f"{np.median([loss(3 + n / 10) for n in range(1, 11)]):.3f}"


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3)], ids=str)
def test_runs_of_several_lengths_are_averaged_as_far_as_the_shortest_goes(lengths, compare, tmp_path):
    files = [write_run(tmp_path / f"{seed}.csv", seed=seed, epochs=epochs) for seed, epochs in enumerate(lengths)]
    status, rows, _, train, validation = compare(*files)
    assert status == 0 and list(validation.lines[0].get_xdata()) == [0, 1, 2, 3]
    assert list(train.lines[0].get_xdata()) == pytest.approx([n / 10 for n in range(1, 31)])
    assert (rows[0]["epochs"], rows[0]["validation"]) == ("3.0", f"{falling(3) + 0.05:.3f}±0.000")


def test_a_file_that_is_given_twice_is_one_run(compare, tmp_path):
    file = write_run(tmp_path / "relu.csv")
    status, rows, *_ = compare(file, file, tmp_path / ".." / tmp_path.name / "relu.csv")
    assert (status, [row["model"] for row in rows]) == (0, ["relu"])
