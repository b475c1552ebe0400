"""A run loses nothing, whatever happens to it: kills, signals, full disks, damaged files, closed pipes, divergence.

Everything is done to real runs of tiny networks, most of them in processes of their own.
"""

import contextlib
import itertools
import math
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import nprnn
import relu
import stirnn
import tanh
import util
from helpers import (ENVIRONMENT, EPOCHS, PER_EPOCH, RESUME, ROOT, TINY, assert_same, begin, change, do, end, files,
                     full_disk, iteration, kill, linux, named, outcome, parse, posix, read_losses, refusal, saved,
                     train, wait_until)

pytestmark = pytest.mark.usefixtures("quick_pictures")
MODELS = "relu", "stirnn"  # their loops differ; tanh and nprnn have that of relu (test_skeleton.py), and test_soak.py


@pytest.fixture(scope="module")
def workers():
    """Return an executor for what can be prepared side by side: a script takes most of its time to start."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture(scope="module")
def reference(text, workers, tmp_path_factory):
    """Return a function that gives the outcome of a model's uninterrupted run."""
    def uninterrupted(model, folder):
        do(model, *TINY, "--train", text, "--out", folder)
        return outcome(folder, model)
    runs = {model: workers.submit(uninterrupted, model, tmp_path_factory.mktemp(model)) for model in MODELS}
    return lambda model="relu": runs[model].result()


@pytest.fixture(scope="module")
def killed(text, workers, module_rng, tmp_path_factory):
    """Return a function that gives the folder of a model's run that was killed at a random moment."""
    def interrupted(model, folder, moment, delay):
        process = begin(model, *TINY, "--train", text, "--out", folder)
        wait_until(lambda: iteration(folder, model) >= moment, process)
        time.sleep(delay)
        kill(process)
        return folder
    runs = {model: workers.submit(interrupted, model, tmp_path_factory.mktemp(model), module_rng.randint(1, 180),
                                  module_rng.uniform(0, 0.03)) for model in MODELS}
    return lambda model="relu": runs[model].result()


@pytest.fixture(scope="module", autouse=os.name != "nt")
def resumed(killed, reference, workers, tmp_path_factory):
    """Return a function that gives the outcome of a model's run that was killed and then resumed."""
    def go_on(model, folder):
        shutil.copytree(killed(model), folder)
        do(model, *RESUME, folder)
        return outcome(folder, model)
    runs = {model: workers.submit(go_on, model, tmp_path_factory.mktemp(model) / "copy") for model in MODELS}
    return lambda model: runs[model].result()


@pytest.fixture
def alone(killed, reference, resumed):
    """Wait until nothing is prepared beside: full_disk() limits the whole process, and what it starts."""
    for model in MODELS:
        killed(model), reference(model), resumed(model)


@pytest.fixture
def short(tmp_path):
    """A text so short that an epoch is one update."""
    path = tmp_path / "short.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 3)
    return path


@pytest.fixture
def stopped(killed, tmp_path):
    """Return a copy of a killed run's folder."""
    return shutil.copytree(killed(), tmp_path / "run")


@pytest.fixture
def run(text, tmp_path, monkeypatch):
    """Return a tiny run that has not begun; signals stay as they were."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return util.Run("relu", parse(relu, *TINY, "--train", text, "--out", tmp_path))


@pytest.fixture
def at_update(monkeypatch):
    """Return a function that has an action done in the midst of an update of the run to come in this process."""
    def plan(script, number, action):
        plain, updates = script.rmsprop, itertools.count(1)

        def rmsprop(*arguments):
            plain(*arguments)
            if next(updates) == number:
                action()
        monkeypatch.setattr(script, "rmsprop", rmsprop)
    return plan


# Kills and signals -----------------------------------------------------------------------------------------------

@posix
def test_ctrl_c_and_sigterm_save_and_draw_and_the_command_that_they_print_goes_on(reference, text, tmp_path):
    words = [*TINY, "--train", text, "--out", tmp_path]
    for number, status, moment in (signal.SIGINT, 130, 60), (signal.SIGTERM, 143, 120):
        process = begin("relu", *words, "--save-every", 20)
        wait_until(lambda moment=moment: iteration(tmp_path) >= moment, process)
        drawn = (tmp_path / "relu.png").stat().st_mtime_ns
        process.send_signal(number)
        output, errors = end(process, status)
        assert moment <= iteration(tmp_path) < EPOCHS * PER_EPOCH and errors == ""
        assert (tmp_path / "relu.png").stat().st_mtime_ns > drawn
        assert (tmp_path / "relu.png").read_bytes().startswith(b"\x89PNG")
        python, script, *words = shlex.split(re.search("Go on with: (.*)", output)[1])
        assert (python, script) == ("python", "relu.py")
        words.append("--no-window")
    train(relu, *words)
    assert_same(outcome(tmp_path), reference())


@posix
def test_the_checkpoint_of_an_epochs_end_knows_of_its_validation_and_sample(reference, text, tmp_path):
    process = begin("relu", *TINY, "--save-every", 1000, "--train", text, "--out", tmp_path)
    wait_until(lambda: iteration(tmp_path) >= PER_EPOCH, process)
    kill(process)
    assert iteration(tmp_path) % PER_EPOCH == 0
    train(relu, *RESUME, tmp_path)
    assert_same(outcome(tmp_path), reference())


@pytest.mark.parametrize("script", [relu, stirnn], ids=lambda script: script.MODEL)
def test_the_last_state_is_saved_before_the_plot_is_drawn_for_the_last_time(script, text, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "Grapher", lambda *_: mock.Mock(**{"draw.side_effect": KeyboardInterrupt}))
    with pytest.raises(KeyboardInterrupt):
        train(script, *TINY, "--train", text, "--out", tmp_path, "--epochs", 1, "--save-every", 1000)
    state, last = saved(tmp_path / f"{script.MODEL}.npz", script.MODEL), read_losses(tmp_path, script.MODEL)[1][-1]
    assert state["iteration"] == PER_EPOCH == int(last["iteration"])


def test_a_run_stopped_before_its_first_update_is_no_earlier_run_to_keep_or_resume(
        reference, text, tmp_path, monkeypatch, capsys):
    def evaluate_loss(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return plain(*arguments)
    plain = relu.evaluate_loss
    monkeypatch.setattr(relu, "evaluate_loss", evaluate_loss)
    train(relu, *TINY, "--train", text, "--out", tmp_path, status=143)
    output, errors = capsys.readouterr()
    assert output.endswith("Stopped before the first update\n") and errors == ""
    monkeypatch.setattr(relu, "evaluate_loss", plain)
    assert "there is no saved network" in refusal(util.Run, "relu", parse(relu, *RESUME, tmp_path))
    train(relu, *TINY, "--train", text, "--out", tmp_path)
    assert "earlier run" not in capsys.readouterr().out and files(tmp_path).keys() == named("npz csv txt png lock")
    assert_same(outcome(tmp_path), reference())


@posix
def test_a_second_ctrl_c_ends_the_run_at_once_and_the_checkpoint_is_whole(text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    wait_until(lambda: iteration(tmp_path) >= 20, process)
    while process.poll() is None:  # the first is handled between two of these; drawing takes a hundred times as long
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGINT and "Stopped" not in output
    assert saved(tmp_path / "relu.npz")["iteration"] >= 20


def test_after_the_first_signal_the_next_of_either_kind_ends_the_run_at_once(text, tmp_path, at_update):
    left = []

    def interrupted():
        signal.raise_signal(signal.SIGTERM)
        left.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
    at_update(relu, 2, interrupted)
    train(relu, *TINY, "--train", text, "--out", tmp_path, status=143)
    assert left == [signal.SIG_DFL] * 2


@linux
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_second_process_ends_with_the_first_and_costs_it_nothing_if_both_get_the_signal(
        number, status, text, tmp_path):
    words = [*TINY, "--train", text, "--out", tmp_path, "--hidden-size", 64, "--epochs", 1000]
    process = begin("relu", *words, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: iteration(tmp_path) >= 20, process)
    pids = [int(word) for word in children.read_text().split()]
    assert util.CORES == 1 or pids
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status and errors == ""
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    train(relu, *RESUME, tmp_path, "--epochs", math.ceil((iteration(tmp_path) + 1) / PER_EPOCH))


@linux
@pytest.mark.skipif(util.CORES == 1, reason="one core has no second process")
def test_ctrl_c_while_the_second_process_starts_prints_nothing_of_it(text, tmp_path):
    words = [*TINY, "--train", text, "--out", tmp_path, "--hidden-size", 64, "--epochs", 1000]
    process = begin("relu", *words, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: any(b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
                           for pid in children.read_text().split()), process)
    time.sleep(0.05)  # it is still importing NumPy
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == ""


def test_a_signal_in_the_last_update_changes_nothing(short, tmp_path, at_update, capsys):
    at_update(relu, 2, lambda: signal.raise_signal(signal.SIGTERM))
    train(relu, *TINY, "--train", short, "--out", tmp_path, "--epochs", 2)
    output, errors = capsys.readouterr()
    assert output.splitlines()[-1].startswith("Done. ") and errors == "" and iteration(tmp_path) == 2
    at_update(relu, 2, lambda: signal.raise_signal(signal.SIGTERM))
    train(relu, *TINY, "--train", short, "--out", tmp_path, "--epochs", 3, status=143)  # in any other it does


# Resuming and starting afresh ------------------------------------------------------------------------------------

def resume_refused(script, folder, *words):
    """Return the line with which a resume is refused, which touches no file and leaves none."""
    model = script.MODEL
    (folder / f"{model}.lock").unlink(missing_ok=True)
    before = files(folder)
    line = refusal(util.Run, model, parse(script, *RESUME, folder, *words))
    assert files(folder) == before
    return line


def another(setting):
    """Return a value of a setting that is not its default."""
    value, least, most, _ = setting
    return value / 2 if isinstance(value, float) else value + 1


def test_resuming_with_other_epochs_another_learning_rate_and_the_text_elsewhere_is_accepted_and_said(
        stopped, text, capsys):
    copy = shutil.copy(text, stopped / "copy.txt")
    train(relu, *RESUME, stopped, "--epochs", EPOCHS + 1, "--learning-rate", 0.005, "--train", copy)
    output = capsys.readouterr().out
    assert f"had --epochs {EPOCHS}; it goes on with {EPOCHS + 1}" in output
    assert "had --learning-rate 0.01; it goes on with 0.005" in output
    assert iteration(stopped) == (EPOCHS + 1) * PER_EPOCH


def test_no_speed_is_told_of_the_first_updates_which_are_slow_as_a_process_starts(stopped, capsys):
    train(relu, *RESUME, stopped)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert "-:--:-- left" in told[0] and "char/s" not in told[0] and told[-1].endswith(" char/s")


@pytest.mark.parametrize("words", [[], ["--epochs", 1], ["--quiet"]])
def test_resuming_a_run_that_has_so_many_epochs_behind_it_says_so_and_changes_nothing(words, short, tmp_path, capsys):
    train(relu, *TINY, "--train", short, "--out", tmp_path, "--epochs", 2)
    before = files(tmp_path)
    capsys.readouterr()
    train(relu, *RESUME, tmp_path, *words, status=0)
    told, errors = capsys.readouterr()
    assert f"{tmp_path / 'relu.npz'} is at epoch 2; a larger --epochs goes on from there" in told
    assert "it goes on with" not in told
    assert files(tmp_path) == before and errors == ""


def test_a_resumed_run_that_is_stopped_again_before_it_validates_keeps_the_validation_loss(stopped, at_update):
    before = saved(stopped / "relu.npz")["validation_loss"]
    at_update(relu, 1, lambda: signal.raise_signal(signal.SIGTERM))
    train(relu, *RESUME, stopped, status=143)
    assert saved(stopped / "relu.npz")["validation_loss"] == before > 0


def test_a_resumed_run_that_is_stopped_before_its_first_update_says_where_it_stands_and_how_to_go_on(
        stopped, monkeypatch, capsys):
    begun = iteration(stopped)
    monkeypatch.setattr(relu, "Grapher", lambda *_: signal.raise_signal(signal.SIGTERM) or mock.Mock())
    train(relu, *RESUME, stopped, status=143)
    assert f"Stopped after iteration {begun:,} of {EPOCHS * PER_EPOCH:,}. Go on with: " in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(stirnn.SETTINGS.keys() - {"epochs", "learning_rate"}))
def test_resuming_with_another_value_given_or_edited_in_the_script_is_refused_by_name_for(
        name, killed, tmp_path, monkeypatch):
    folder = shutil.copytree(killed("stirnn"), tmp_path / "run")
    mine = util.load_checkpoint(folder / "stirnn.npz", "stirnn")[0]["settings"][name]
    default, other = stirnn.SETTINGS[name], another(stirnn.SETTINGS[name])
    expected = f"stirnn.py: the saved run has {util.option(name, mine)}, not {other}; "
    monkeypatch.setattr(sys, "argv", ["stirnn.py"])
    assert resume_refused(stirnn, folder, util.option(name), other).startswith(expected)
    monkeypatch.setitem(stirnn.SETTINGS, name, (other, *default[1:]))
    assert resume_refused(stirnn, folder).startswith(expected)


def test_resuming_on_another_text_is_refused_with_both_names(stopped):
    line = resume_refused(relu, stopped, "--train", ROOT / "data" / "play.txt")
    assert "the saved run's text is part.txt with SHA-256" in line and "play.txt has" in line


def test_resuming_with_another_validation_text_is_refused(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    train(relu, *TINY, "--train", text, "--val", text, "--out", tmp_path / "run", "--epochs", 1)
    assert "the saved run's text is part.txt" in resume_refused(relu, tmp_path / "run", "--val", other)


def test_a_run_on_texts_in_the_folder_it_was_started_in_is_resumed_from_any_other(text, tmp_path, monkeypatch):
    monkeypatch.chdir(text.parent)
    train(relu, *TINY, "--train", text.name, "--val", text.name, "--out", tmp_path / "run", "--epochs", 1)
    per_epoch = iteration(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    train(relu, *RESUME, "run", "--epochs", 2)
    assert iteration(tmp_path / "run") == 2 * per_epoch


def test_where_a_text_is_missing_the_line_names_the_option_that_gives_another(stopped):
    for name in "val", "train":
        change(stopped / "relu.npz", **{name: str(stopped / "nowhere.txt")})
        line = resume_refused(relu, stopped)
        assert f"cannot read {stopped / 'nowhere.txt'}: " in line and line.endswith(f"give a text with --{name}\n")


def test_resuming_with_a_script_that_has_other_settings_is_refused_as_of_another_version(stopped, monkeypatch):
    monkeypatch.setitem(relu.SETTINGS, "momentum", (0.9, 0, 1, "a setting that the saved run knew nothing of"))
    assert "is of another version of relu.py" in resume_refused(relu, stopped)


def test_a_learning_rate_edited_in_the_script_is_gone_on_with(text, tmp_path, monkeypatch, capsys):
    train(relu, *TINY, "--train", text, "--out", tmp_path, "--epochs", 1)
    monkeypatch.setitem(relu.SETTINGS, "learning_rate", (0.004, *relu.SETTINGS["learning_rate"][1:]))
    monkeypatch.setitem(relu.SETTINGS, "epochs", (2, *relu.SETTINGS["epochs"][1:]))
    train(relu, *RESUME, tmp_path)
    assert "had --learning-rate 0.01; it goes on with 0.004" in capsys.readouterr().out
    about, rows = read_losses(tmp_path)
    assert (about["learning_rate"], about["epochs"], rows[-1]["epoch"]) == (0.004, 2, "2")


def test_a_run_without_the_norm_stabiliser_is_resumed_without_it(text, tmp_path):
    train(stirnn, *TINY, "--train", text, "--out", tmp_path, "--epochs", 1, "--beta", 0)
    train(stirnn, *RESUME, tmp_path, "--epochs", 2)
    about, rows = read_losses(tmp_path, "stirnn")
    assert about["beta"] == 0 and [row["penalty"] for row in rows if row["penalty"] != "0"] == [""]


def test_every_setting_is_in_the_checkpoint_and_in_the_file_of_losses(killed):
    settings = {name: value for name, (value, *_) in stirnn.SETTINGS.items()}
    settings |= {"epochs": EPOCHS, "hidden_size": 16, "depth": 2, "seq_size": 20, "batch_size": 5,
                 "warm_up_share": 1}  # TINY's
    meta, _ = util.load_checkpoint(killed("stirnn") / "stirnn.npz", "stirnn")
    about, _ = read_losses(killed("stirnn"), "stirnn")
    assert meta["settings"] == settings and settings.items() <= about.items()
    assert about["sha256"] == meta["sha256"] and about["version"] == meta["version"] == util.VERSION


def test_a_new_run_moves_earlier_ones_into_folders_that_it_names_where_they_can_be_resumed(
        stopped, text, reference, capsys):
    (stopped / "1").write_text("a file in the way")
    for number in 2, 3:
        earlier = {name: (stopped / name).read_bytes() for name in named("npz csv txt png")}
        train(relu, *TINY, "--epochs", 1, "--train", text, "--out", stopped)
        assert f"An earlier run is kept in {stopped / str(number)} " in capsys.readouterr().out
        assert files(stopped / str(number)) == earlier and iteration(stopped) == PER_EPOCH
    train(relu, *RESUME, stopped / "2")
    assert_same(outcome(stopped / "2"), reference())


def test_earlier_runs_of_several_models_are_kept_side_by_side(text, tmp_path):
    for script in relu, tanh, relu, tanh:
        train(script, *TINY, "--epochs", 1, "--train", text, "--out", tmp_path)
    assert files(tmp_path / "1").keys() == named("npz csv txt png") | named("npz csv txt png", "tanh")
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize("rows, kept", [(1, False), (2, True)])
def test_an_earlier_run_without_a_checkpoint_is_kept_from_its_first_row_after_an_update_on_and_no_use_of_it_is_promised(
        rows, kept, text, tmp_path, capsys):
    words = [*TINY, "--epochs", 1, "--train", text, "--out", tmp_path]
    train(relu, *words)
    (tmp_path / "relu.npz").unlink()
    losses = b"".join((tmp_path / "relu.csv").read_bytes().splitlines(keepends=True)[:2 + rows])
    (tmp_path / "relu.csv").write_bytes(losses)
    train(relu, *words)
    assert (f"is kept in {tmp_path / '1'} (it has saved no network yet)\n" in capsys.readouterr().out) == kept
    train(relu, *words)
    assert f"is kept in {tmp_path / str(1 + kept)} (" in capsys.readouterr().out
    assert not kept or (tmp_path / "1" / "relu.csv").read_bytes() == losses


@pytest.mark.parametrize("suffix", ["npz", "csv", "txt", "png"])
def test_an_earlier_run_of_which_a_file_could_not_be_moved_is_kept_by_the_next_start(
        suffix, text, tmp_path, monkeypatch, capsys):
    place, rename = tmp_path / "my runs", Path.rename
    words = [*TINY, "--epochs", 1, "--train", text, "--out", place]
    train(relu, *words)
    earlier = files(place)

    def in_use(path, target):
        if path.suffix == f".{suffix}":
            raise PermissionError(13, "in use")
        rename(path, target)
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(Path, "rename", in_use)
        train(relu, *words)
    train(relu, *words, "--seed", 2)
    assert {path.name: path.read_bytes() for path in place.glob("*/relu.*")} == {
        name: earlier[name] for name in named("npz csv txt png")}
    folder, = (path.parent for path in place.glob("*/relu.npz"))
    assert f"({util.option('out', folder)} resumes it" in capsys.readouterr().out  # in quotes


@posix
def test_a_folder_in_which_files_cannot_be_locked_is_not_said_to_have_another_run(text, tmp_path):
    import fcntl
    with mock.patch.object(fcntl, "flock", side_effect=OSError(37, "No locks available")):
        line = refusal(train, relu, *TINY, "--train", text, "--out", tmp_path)
    assert f": cannot lock {tmp_path / 'relu.lock'}: No locks available; give another folder with --out" in line


@posix
def test_two_runs_in_one_folder_are_not_possible_and_the_second_touches_nothing(text, tmp_path, capsys):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    wait_until(lambda: iteration(tmp_path) >= 20, process)
    process.send_signal(signal.SIGSTOP)  # so that only the second could change anything
    os.waitpid(process.pid, os.WUNTRACED)
    before = files(tmp_path)
    for words in [*TINY, "--train", text], ["--resume", "--no-window"]:
        line = refusal(train, relu, *words, "--out", tmp_path)
        assert "another run writes to" in line and capsys.readouterr().out == ""
    assert files(tmp_path) == before
    kill(process)


def test_runs_of_two_models_go_side_by_side_in_one_folder(text, tmp_path):
    process = begin("relu", *TINY, "--epochs", 1000, "--train", text, "--out", tmp_path)
    wait_until(lambda: iteration(tmp_path) >= 20, process)
    train(tanh, *TINY, "--epochs", 1, "--train", text, "--out", tmp_path)
    assert iteration(tmp_path, "tanh") == PER_EPOCH and process.poll() is None
    kill(process)


def test_sampling_from_the_last_checkpoint_works_while_the_run_goes_on(text, tmp_path):
    process = begin("relu", *TINY, "--epochs", 1000, "--save-every", 1, "--train", text, "--out", tmp_path, "--quiet")
    wait_until(lambda: iteration(tmp_path) >= 1, process)
    output, _ = do("relu", "--sample", 50, "--prime", "the ", "--out", tmp_path)
    assert output.startswith("the ") and len(output) == 4 + 50 + 1 and process.poll() is None
    kill(process)


def test_seconds_go_on_from_those_of_the_checkpoint_and_speed_and_time_left_are_those_of_this_process(
        text, tmp_path, at_update, monkeypatch, capsys):
    clock, plain = [1000.0], relu.rmsprop

    def rmsprop(*arguments):
        plain(*arguments)
        clock[0] += 0.5 / PER_EPOCH
    monkeypatch.setattr(util.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(relu, "Grapher", lambda *_: mock.Mock())
    monkeypatch.setattr(relu, "rmsprop", rmsprop)
    new = *TINY, "--epochs", 10_000, "--train", text, "--out"
    for words, epoch, seconds in (new, 3, 1.5), (RESUME, 5003, 9001.5):
        at_update(relu, 3 * PER_EPOCH + 1, lambda: signal.raise_signal(signal.SIGINT))
        train(relu, *words, tmp_path, status=130)
        left = (10_000 - epoch) // 2
        assert re.search(rf"epoch +{epoch}.00/10000  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left .*"
                         rf"  {2 * PER_EPOCH * 100:,} char/s\n", capsys.readouterr().out)
        rows = {row["epoch"]: float(row["seconds"]) for row in read_losses(tmp_path)[1]}
        assert rows[str(epoch)] == pytest.approx(seconds, abs=1e-4)
        meta, _ = util.load_checkpoint(tmp_path / "relu.npz", "relu")
        assert meta["seconds"] == pytest.approx(seconds + 0.5 / PER_EPOCH, abs=1e-4)
        change(tmp_path / "relu.npz", iteration=5000 * PER_EPOCH, seconds=9000.0)  # as if it had been at work for long


def test_a_shorter_progress_line_on_a_terminal_leaves_nothing_of_the_one_before(run, monkeypatch, capsys):
    monkeypatch.setattr(util, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    run.begin()
    for run.validation_loss in 12345.678, 1.234:
        run.show_progress()
    long, short = capsys.readouterr().out.split("\r")[1:]
    assert len(short) == len(long) and short.endswith(" 1.234    ")


@pytest.mark.parametrize("per_epoch, last", [(87, 10), (330, 33), (1024, 100)])
def test_the_training_loss_shown_is_the_mean_of_a_tenth_of_an_epoch_but_of_10_to_100_updates(per_epoch, last, run):
    assert math.isnan(run.train_loss())
    run.per_epoch = per_epoch
    for count in 5, 200:
        run.losses.extend(range(count))
        assert run.train_loss() == np.mean(range(count)[-last:])


@pytest.mark.parametrize("terminal, pause", [(True, 0.2), (False, 60)], ids=["terminal", "file"])
def test_progress_is_printed_five_times_a_second_on_a_terminal_and_every_minute_elsewhere(
        terminal, pause, run, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(util.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(util, "on_terminal", lambda: terminal)
    run.begin()
    capsys.readouterr()
    for _ in range(111):
        clock[0] += pause / 10
        run.note(4.0)
    assert 10 <= len(re.findall(r"epoch +\d", capsys.readouterr().out)) <= 12


def test_a_run_is_called_short_only_if_all_its_updates_are_too_few(run, monkeypatch, capsys):
    for enough, told in (EPOCHS * PER_EPOCH, False), (EPOCHS * PER_EPOCH + 1, True):
        monkeypatch.setattr(util, "ENOUGH", enough)
        run.begin()
        assert ("is very short" in capsys.readouterr().out) == told


@pytest.mark.parametrize("tell, printed", [
    (lambda run: [run.say("Done."), run.say("Done.")], "Done.\nDone.\n"),
    (lambda run: [run.warn("careful"), run.warn("careful")], ""),
    (lambda run: refusal(run.note, math.nan, status=1), "")], ids=["a line", "a warning", "the end of the program"])
def test_nothing_that_a_run_tells_stands_behind_the_progress_line(tell, printed, run, monkeypatch, capsys):
    monkeypatch.setattr(util, "on_terminal", lambda: True)
    run.show_progress()
    tell(run)
    assert re.fullmatch(rf"\repoch .*\n{printed}", capsys.readouterr().out)


# Without texts of one's own --------------------------------------------------------------------------------------

def clone(folder):
    """Make a copy of what a script needs; return its folder."""
    (folder / "data").mkdir(parents=True)
    for name in "relu.py", "util.py", "graph.py", "data/play.txt":
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_a_clone_that_was_moved_resumes_its_default_run(text, tmp_path):
    here, there = clone(tmp_path / "here"), tmp_path / "there"
    for name in "train", "val":
        shutil.copy(text, here / "data" / f"shakespear_{name}.txt")
    do("relu", *TINY, "--epochs", 1, folder=here, cwd=here)
    here.rename(there)
    meta, _ = util.load_checkpoint(there / "runs" / "relu.npz", "relu")
    assert meta["train"] is meta["val"] is None
    output, errors = do("relu", "--resume", "--no-window", "--epochs", 2, folder=there, cwd=there)
    assert "Resuming after iteration" in output and "epoch   2.00/2" in output and errors == ""


def test_without_a_network_a_run_is_on_the_play_and_goes_on_there_without_asking_the_network_again(server, tmp_path):
    folder = clone(tmp_path / "clone")
    server.status = 502  # of a proxy that can't reach the host
    here = {"folder": folder, "cwd": folder,
            "env": {**ENVIRONMENT, "https_proxy": f"http://127.0.0.1:{server.server_port}"}}
    output, errors = do("relu", "--hidden-size", 8, "--depth", 1, "--batch-size", 60, "--no-window", **here)
    lines = output.splitlines()
    assert errors.startswith("Shakespeare was not downloaded: ") and "data/play.txt" in errors
    assert errors.count("\n") == 1
    assert f"{util.PLAY_EPOCHS} epochs will do" in lines[1] and server.requests == 1
    assert f"epoch {util.PLAY_EPOCHS:6.2f}/{util.PLAY_EPOCHS}" in output and lines[-1].startswith("Done. ")
    more = util.PLAY_EPOCHS + 1
    output, errors = do("relu", "--resume", "--no-window", "--epochs", more, **here)
    assert "Resuming after" in output and f"epoch {more:6.2f}/{more}" in output
    assert server.requests == 1 and errors == ""


@pytest.mark.parametrize("given, epochs", [([], 2), (["--epochs", 1], 1)], ids=["default", "given"])
def test_a_run_on_the_play_by_a_relative_path_too_has_the_plays_number_of_epochs_unless_one_is_given(
        given, epochs, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(util, "PLAY", text)
    monkeypatch.setattr(util, "PLAY_EPOCHS", 2)
    monkeypatch.chdir(text.parent)
    train(relu, "--hidden-size", 8, "--depth", 1, "--batch-size", 5, "--seq-size", 20, "--no-window", *given,
          "--train", text.name, "--out", tmp_path)
    assert ("2 epochs will do" in capsys.readouterr().out) == (not given)
    assert iteration(tmp_path) == epochs * PER_EPOCH


# The best network and the samples --------------------------------------------------------------------------------

def test_sampling_draws_from_the_network_of_the_lowest_validation_loss_and_says_which_it_is(text, tmp_path):
    backwards = tmp_path / "backwards.txt"  # the better the network knows the text, the worse it does on this
    backwards.write_text(text.read_text()[::-1])
    train(relu, *TINY, "--epochs", 3, "--train", text, "--val", backwards, "--out", tmp_path)
    train(relu, *RESUME, tmp_path, "--epochs", 5)
    meta, arrays = util.load_checkpoint(tmp_path / "relu.npz", "relu")
    losses = {float(row["epoch"]): float(row["validation_loss"]) for row in read_losses(tmp_path)[1]
              if row["validation_loss"]}
    best = min(losses, key=losses.get)
    assert 0 < best < 5 and meta["best_epoch"] == pytest.approx(best)
    assert losses[5] > losses[best] == pytest.approx(meta["best_loss"], rel=1e-8)
    weights = util.part(arrays, "best")
    assert relu.evaluate_loss(weights, util.encode(backwards.read_text(), meta["vocabulary"])) == meta["best_loss"]
    output, errors = do("relu", "--sample", 80, "--seed", 5, "--out", tmp_path)
    drawn = relu.sample(weights, meta["vocabulary"], 80, 0.7, np.random.default_rng(5))
    assert output == "".join(drawn) + "\n"
    assert errors == (f"{tmp_path / 'relu.npz'}: the network of epoch {best:.4g}, "
                      f"validation loss {losses[best]:.4f}\n")


def test_validations_and_samples_come_after_every_epoch_and_the_text_file_keeps_all(reference):
    validated = [row for row in reference()["rows"] if row["validation_loss"]]
    assert [int(row["iteration"]) for row in validated] == list(range(0, EPOCHS * PER_EPOCH + 1, PER_EPOCH))
    _, *parts = re.split(r"^--- iteration ([\d,]+), validation loss ([\d.]+)\n", reference()["text file"].decode(),
                         flags=re.MULTILINE)
    heads = [(f"{int(row['iteration']):,}", f"{float(row['validation_loss']):.3f}") for row in validated]
    assert list(zip(parts[0::3], parts[1::3])) == heads
    assert [len(sample.removesuffix("\n")) for sample in parts[2::3]] == [201] * (len(heads) - 1) + [200]
    assert len({*parts[2::3]}) == len(heads)


# Writes that fail ------------------------------------------------------------------------------------------------

@posix
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_intact(stopped, alone, capsys):
    before = files(stopped)
    with full_disk(10_000):
        train(relu, *RESUME, stopped, "--save-every", 100, status=1)
    output, errors = capsys.readouterr()
    failed = f"cannot write {stopped / 'relu.npz'}: File too large"
    *others, last, verdict = [line for line in errors.splitlines() if "cannot draw" not in line]
    assert others and set(others) == {f"{failed}; training goes on"}
    assert last == failed  # training has ended
    assert verdict.endswith(f": the last state is not in {stopped / 'relu.npz'}")
    assert f"epoch   {EPOCHS}.00/{EPOCHS}" in output
    after = files(stopped)
    assert after.keys() == named("npz csv txt png lock")
    assert {name for name in after if after[name] != before[name]} == named("csv txt")


@posix
def test_a_run_that_can_write_nothing_at_all_says_so_line_by_line(text, alone, tmp_path, capsys):
    with full_disk():
        train(relu, *TINY, "--epochs", 2, "--train", text, "--out", tmp_path, status=1)
    output, errors = capsys.readouterr()
    assert "epoch   2.00/2" in output
    assert {name.split(".")[-1] for name in re.findall(r"cannot \w+ (\S+):", errors)} == {"npz", "csv", "txt", "png"}
    for line in errors.splitlines():
        assert re.fullmatch(r"cannot \w+ \S+: [\w ]+(; training goes on)?|\S+: the last state is not in \S+", line)
    assert errors.count("cannot draw") == 1  # not after every update
    assert files(tmp_path) == {"relu.lock": b""}


@posix
def test_a_disk_that_is_full_for_a_while_costs_nothing_in_the_end(
        reference, text, alone, tmp_path, at_update, capsys):
    with contextlib.ExitStack() as full:
        at_update(relu, 50, lambda: full.enter_context(full_disk(100)))
        at_update(relu, 110, full.close)
        train(relu, *TINY, "--train", text, "--out", tmp_path)
    failures = set(capsys.readouterr().err.splitlines())
    assert failures == {f"cannot write {tmp_path / name}: File too large; training goes on"
                        for name in named("npz csv txt")}
    assert_same(outcome(tmp_path), reference())


@posix
@pytest.mark.parametrize("suffix", ["csv", "txt", "png"])
def test_losses_samples_or_a_plot_that_cannot_be_written_do_not_stop_the_run(suffix, stopped, reference, capsys):
    (stopped / f"relu.{suffix}").unlink()
    (stopped / f"relu.{suffix}").mkdir()
    train(relu, *RESUME, stopped)
    told = {f"cannot draw {stopped / 'relu.png'}: Is a directory"} if suffix != "txt" else set()
    if suffix != "png":
        failed = f"cannot write {stopped / f'relu.{suffix}'}: Is a directory"
        told |= {failed, f"{failed}; training goes on"}
    assert set(capsys.readouterr().err.splitlines()) == told
    assert {path.name for path in stopped.iterdir()} == named("npz csv txt png lock")
    assert_same(saved(stopped / "relu.npz"), {name: reference()[name] for name in saved(stopped / "relu.npz")})


@posix
def test_a_run_whose_folder_is_removed_ends_well_and_leaves_its_files(reference, text, tmp_path, at_update):
    out = tmp_path / "runs"
    at_update(relu, 101, lambda: shutil.rmtree(out))
    train(relu, *TINY, "--train", text, "--out", out)
    assert_same(outcome(out), reference())
    assert (out / "relu.png").read_bytes().startswith(f"relu on {text.name}, epoch {EPOCHS}.0".encode())


@posix
@pytest.mark.parametrize("signals, status", [([], 141), ([signal.SIGINT], 130)], ids=["left", "interrupted"])
def test_a_run_that_nobody_reads_any_more_ends_cleanly_with_a_checkpoint(signals, status, text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    assert any(line.startswith("epoch   1.00") for line in process.stdout)
    process.send_signal(signal.SIGSTOP)  # so that it meets all of this at once
    os.waitpid(process.pid, os.WUNTRACED)
    process.stdout.close()
    for number in [*signals, signal.SIGCONT]:
        process.send_signal(number)
    process.wait(timeout=60)
    assert (process.returncode, process.stderr.read()) == (status, "")
    assert saved(tmp_path / "relu.npz")["iteration"] < EPOCHS * PER_EPOCH


@linux
def test_a_run_that_prints_onto_a_full_disk_says_so_once_and_goes_on_to_its_end(reference, text, tmp_path):
    with open("/dev/full", "w") as full:
        _, errors = do("relu", *TINY, "--train", text, "--out", tmp_path, stdout=full)
    assert errors == "cannot print: No space left on device\n"
    assert_same(outcome(tmp_path), reference())


def test_a_checkpoint_every_so_many_updates_and_after_every_epoch_replaces_another_once_it_is_on_the_disk(
        text, tmp_path, monkeypatch):
    on_disk, replaced, plain = set(), [], os.replace

    def state(stat):
        return stat.st_ino, stat.st_size

    def replace(source, target):
        plain(source, target)
        if Path(target).suffix == ".npz":
            replaced.append((iteration(tmp_path), state(os.stat(target)) in on_disk))
    monkeypatch.setattr(os, "fsync", lambda number: on_disk.add(state(os.fstat(number))))
    monkeypatch.setattr(os, "replace", replace)
    train(relu, *TINY, "--epochs", 3, "--save-every", 40, "--train", text, "--out", tmp_path)
    end = 3 * PER_EPOCH
    assert replaced == [(due, True) for due in sorted({*range(40, end, 40), *range(PER_EPOCH, end + 1, PER_EPOCH)})]


def test_all_of_a_durable_file_is_with_the_system_before_the_disk_is_asked_for_it(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size))
    util.write_file(tmp_path / "file", b"x" * 1000, durable=True)  # so few would wait in a buffer
    util.write_file(tmp_path / "other", b"x" * 1000)
    assert sizes == [1000]


def test_a_file_that_another_program_reads_for_a_second_is_waited_for_and_no_other_failure_is(tmp_path, monkeypatch):
    plain, clock = os.replace, [0.0]

    def sleep(seconds):
        clock[0] += seconds

    def replace(source, target):  # as on Windows
        if clock[0] < 1:
            raise PermissionError(13, "it is being used by another process")
        plain(source, target)
    monkeypatch.setattr(util.time, "sleep", sleep)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        util.write_file(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x" and clock[0] < 3
    clock[0] = 0.0
    with mock.patch.object(os, "replace", side_effect=OSError(28, "No space left on device")), pytest.raises(OSError):
        util.write_file(tmp_path / "file", b"y")
    assert clock[0] == 0


def test_two_programs_may_write_files_of_one_run_at_the_same_time(tmp_path, monkeypatch):
    plain = os.replace

    def replace(source, target):
        monkeypatch.setattr(os, "replace", plain)
        util.write_file(tmp_path / "relu.window", b"the window's")
        plain(source, target)
    monkeypatch.setattr(os, "replace", replace)
    util.write_file(tmp_path / "relu.png", b"the training's")
    assert files(tmp_path) == {"relu.png": b"the training's", "relu.window": b"the window's"}


# Damaged files ---------------------------------------------------------------------------------------------------

class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def refused(path, capsys):
    """Return the line with which a file is refused, with exit status 2; empty if it is not."""
    content = path.read_bytes()
    try:
        util.load_checkpoint(path, "relu")
        return ""
    except SystemExit as stop:
        errors = capsys.readouterr().err
        assert stop.code == 2 and errors.count("\n") == 1 and f"{path} is no saved network that can be used: " in errors
        return errors
    finally:
        assert path.read_bytes() == content


def infected(array, value):
    array = array.copy()
    array.flat[-1] = value
    return array


NO_ARCHIVE = "is no saved network that can be used: File is not a zip file"
DAMAGE = {  # what the line says, and the content of the file or what is changed in it
    "it is empty": (NO_ARCHIVE, b""),
    "it is text": (NO_ARCHIVE, b"iteration,epoch\n"),
    "it is no real zip": (NO_ARCHIVE, b"PK\x03\x04 no zip"),
    "it is of an older version": ("used: it is of relu.py, version 1, not relu.py, 2\n", {"version": 1}),
    "it is of another model": ("it is of tanh.py", {"model": "tanh"}),
    "an array is missing": ("weights/Whh1", {"weights/Whh1": None}),
    "meta is missing": ("meta", {"meta": None}),
    "an array is one too many": ("caches/Whh2", {"caches/Whh2": np.zeros((16, 16), np.float32)}),
    "a weight has another shape": ("weights/Whh1", {"weights/Whh1": lambda array: array[None]}),
    "a weight has another type": ("weights/by", {"weights/by": lambda array: array.astype(float)}),
    "an accumulator has another shape": ("caches/by", {"caches/by": lambda array: array[None]}),
    "a weight of the best network is missing": ("best/Why", {"best/Why": None}),
    "the states have another type": ("states", {"states": lambda array: array.astype(np.int32)}),
    "the losses have another type": ("losses", {"losses": lambda array: array.astype(str)}),
    "the states are of a smaller batch": ("states has", {"states": lambda array: array[:, 1:]}),
    "a loss is missing": ("losses has", {"losses": lambda array: array[1:]}),
    "the losses have another shape": ("losses", {"losses": lambda array: array[:, None]}),
    "the history has another shape": ("history", {"history": lambda array: array[:, :-1]}),
    "the history has another type": ("history", {"history": lambda array: array.astype(str)}),
    "a weight is not a number": ("weights/Whh0", {"weights/Whh0": lambda array: infected(array, np.nan)}),
    "an accumulator is infinite": ("caches/Why", {"caches/Why": lambda array: infected(array, np.inf)}),
    "a loss is not a number": ("losses", {"losses": lambda array: infected(array, np.nan)}),
    "a generator is missing": ("generator", {"rngs": []}),
    "the settings are missing": ("NoneType", {"settings": None}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line_that_says_what_is_wrong_when(damage, stopped, capsys):
    why, damage = DAMAGE[damage]
    path = stopped / "relu.npz"
    path.write_bytes(damage) if isinstance(damage, bytes) else change(path, **damage)
    assert why in refused(path, capsys)


def test_a_checkpoint_cut_short_anywhere_is_refused(stopped, capsys, rng):
    path = stopped / "relu.npz"
    content = path.read_bytes()
    for length in [1, 3, 4, 21, 22, 23, 100, len(content) - 1, *rng.sample(range(len(content)), 30)]:
        path.write_bytes(content[:length])
        assert refused(path, capsys), length


def test_a_checkpoint_with_any_bit_flipped_is_refused_or_loaded_identically(stopped, capsys, rng):
    path = stopped / "relu.npz"
    content, whole = path.read_bytes(), saved(path)
    assert not refused(path, capsys)
    refusals = 0
    for position in rng.sample(range(8 * len(content)), 100):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        if refused(path, capsys):
            refusals += 1
        else:
            assert_same(saved(path), whole)
    assert refusals > 50


def test_a_flipped_bit_in_the_header_of_a_large_array_does_not_pass(stopped, capsys, rng):
    path = stopped / "relu.npz"
    meta, _ = util.load_checkpoint(path, "relu")
    weights = relu.init_weights(len(meta["vocabulary"]), 64, 2, np.random.default_rng(1))
    change(path, settings={**meta["settings"], "hidden_size": 64}, states=np.zeros((2, 5, 64), np.float32),
           **{f"{kind}/{name}": array for kind in ("weights", "caches", "best") for name, array in weights.items()})
    content, whole = path.read_bytes(), saved(path)
    with zipfile.ZipFile(path) as file:
        beginning = content.index(b"\x93NUMPY", file.getinfo("weights/Whh1.npy").header_offset)
    others = rng.sample(range(8 * beginning, 8 * (beginning + 128)), 50)
    for position in [*range(8 * (beginning + 8), 8 * (beginning + 10)), *others]:  # first the header's length
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        if not refused(path, capsys):
            assert_same(saved(path), whole)


@pytest.mark.parametrize("disguise", ["pickle", "array of objects", "archive with an array of objects"])
def test_a_pickle_in_disguise_is_refused_and_not_executed(disguise, stopped, capsys):
    path, trace = stopped / "relu.npz", stopped / "executed"
    if disguise == "pickle":
        path.write_bytes(pickle.dumps(Trap(trace)))
    elif disguise == "array of objects":
        with open(path, "wb") as file:
            np.save(file, np.array([Trap(trace)]), allow_pickle=True)
    else:
        change(path, states=np.array([Trap(trace)]))
    assert refused(path, capsys) and not trace.exists()
    with contextlib.suppress(Exception):  # the trap does work
        np.load(path, allow_pickle=True)["states"]
    assert trace.exists()


@pytest.mark.parametrize("words", [["--resume", "--no-window"], ["--sample", "10"], ["--evaluate", ROOT / "relu.py"]],
                         ids=["resuming", "sampling", "evaluating"])
def test_nothing_is_overwritten_with_a_damaged_checkpoint_by(words, stopped):
    os.truncate(stopped / "relu.npz", 10_000)
    before = files(stopped)
    output, errors = do("relu", *words, "--out", stopped, status=2)
    assert errors.startswith("relu.py: ") and errors.count("\n") == 1 and output == ""
    assert files(stopped) == before


# Divergence ------------------------------------------------------------------------------------------------------

def test_a_run_that_diverges_stops_and_its_checkpoint_goes_on_with_a_lower_rate(stopped):
    begun = saved(stopped / "relu.npz")["iteration"]
    for rate in "1e10", "30":  # at once, and by and by
        line = refusal(train, relu, *RESUME, stopped, "--learning-rate", rate, "--save-every", 1, status=1)
        found = re.search(r": the loss is not finite any more at iteration ([\d,]+); go on from the last checkpoint: "
                          r"python relu.py --resume --learning-rate (\S+) --out (\S+)\n", line)
        assert begun <= saved(stopped / "relu.npz")["iteration"] < int(found[1].replace(",", ""))
        assert float(found[2]) == float(rate) / 2 and found[3] == str(stopped)
    train(relu, *RESUME, stopped, "--learning-rate", 0.001)
    assert saved(stopped / "relu.npz")["validation_loss"] < 10


def test_the_advice_after_a_divergence_names_every_text_that_was_given_and_the_epochs(text, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    words = "--epochs", EPOCHS, "--train", text, "--val", shutil.copy(text, tmp_path / "val.txt")
    run = util.Run("relu", parse(relu, *TINY, *words, "--out", tmp_path))
    run.checkpoint.touch()
    given = util.JOIN([*map(str, words), "--out", str(tmp_path)])
    assert refusal(run.note, math.nan, status=1).endswith(f" {given}\n")


@pytest.mark.parametrize("rate", ["1e38", "1e300"])
def test_a_run_that_diverges_before_its_first_checkpoint_says_to_start_again_with_a_lower_rate(rate, text, tmp_path):
    line = refusal(train, nprnn, *TINY, "--train", text, "--out", tmp_path, "--learning-rate", rate, status=1)
    assert re.search(r": the loss is .* iteration 2; nothing was saved; start again with a lower --learn", line)
    assert not (tmp_path / "nprnn.npz").exists()


def test_a_run_that_diverges_tells_of_it_in_one_line_without_numpys_warnings(text, tmp_path):
    _, errors = do("relu", *TINY, "--train", text, "--out", tmp_path, "--learning-rate", 1e30, status=1)
    assert errors.startswith("relu.py: the loss is not finite") and errors.count("\n") == 1


def test_a_diverged_network_whose_loss_stays_finite_does_not_replace_the_last_good_one(text, tmp_path, capsys):
    path = tmp_path / "tanh.npz"
    train(tanh, *TINY, "--epochs", 1, "--train", text, "--out", tmp_path, "--weight-decay", 0)
    before = path.read_bytes()
    words = "--epochs", 3, "--train", text  # the last checkpoint may know of neither
    line = refusal(train, tanh, *RESUME, tmp_path, *words, "--learning-rate", 10_000, "--save-every", 1, status=1)
    assert line.endswith(": the network has diverged, and its last state is not saved; go on from the last checkpoint: "
                         f"python tanh.py --resume --learning-rate 5000 --epochs 3 --train {text} --out {tmp_path}\n")
    trained = re.findall(r"^epoch .*  train (\S+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert float(trained[-1]) > 1e4 and "e+" in trained[-1]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["weights", "caches", "best_weights", "states"])
def test_a_state_with_a_number_that_is_not_finite_anywhere_is_not_saved(name, run):
    run.losses.append(4.0)
    run.states = np.zeros((2, 5, 16), np.float32)
    run.weights, run.caches, run.best_weights = ({"by": np.zeros(9, np.float32)} for _ in range(3))
    assert run.snapshot()
    array = run.states if name == "states" else getattr(run, name)["by"]
    array.flat[-1] = np.inf
    assert run.snapshot() is None


def test_divergence_in_the_last_update_of_an_epoch_is_told_too(short, tmp_path):
    line = refusal(train, stirnn, *TINY, "--train", short, "--out", tmp_path, "--learning-rate", "1e38", status=1)
    assert line.endswith(" at iteration 1; nothing was saved; start again with a lower --learning-rate or --depth\n")


@posix
def test_stirnns_loss_does_not_explode_at_the_start_of_a_run(tmp_path, at_update):
    at_update(stirnn, 100, lambda: signal.raise_signal(signal.SIGTERM))
    train(stirnn, "--train", util.PLAY, "--epochs", 3, "--no-window", "--out", tmp_path, status=143)
    _, rows = read_losses(tmp_path, "stirnn")
    assert float(rows[0]["validation_loss"]) < 5 and rows[-1]["iteration"] == "100"
    assert all(float(row["train_loss"]) < 4 for row in rows[1:])


# What goes on beside all these tests -----------------------------------------------------------------------------

@posix
@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_at_a_random_moment_and_resumed_ends_like_one_that_was_not(model, killed, resumed, reference):
    print(f"killed with a checkpoint of iteration {iteration(killed(model), model)}")
    assert (killed(model) / f"{model}.lock").exists()  # it holds nobody up
    assert_same(resumed(model), reference(model))
