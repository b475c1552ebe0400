"""A run loses nothing, whatever happens to it: kills, signals, full disks, damaged files, closed pipes, divergence.

Everything is done to real runs of tiny networks, in processes of their own; only damaged files are read in this one.
"""

import contextlib
import json
import os
import pickle
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import relu
import util

from conftest import ROOT

MODELS = "relu", "stirnn"  # their loops differ; tanh and nprnn have that of relu (test_skeleton.py), and test_soak.py
EPOCHS, PER_EPOCH = 8, 53
TINY = "--hidden-size 16 --depth 2 --seq-size 20 --batch-size 5 --epochs 8 --save-every 20 --no-plot".split()
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, limits or files")
children = []


@pytest.fixture(scope="module", autouse=True)
def no_process_outlives_the_tests():
    yield
    for process in children:
        if process.poll() is None:
            process.kill()
            process.communicate()


def begin(model, *words, **keywords):
    """Start a script; return its process."""
    alone = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen([sys.executable, f"{model}.py", *map(str, words)], cwd=ROOT, env=alone, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
    children.append(process)
    return process


def end(process, status=0):
    """Wait for a process, which must end with that status and without a traceback; return its output and errors."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in errors, output + errors
    return output, errors


def do(model, *words, status=0, **keywords):
    return end(begin(model, *words, **keywords), status)


def wait_until(process, condition):
    """Wait for a condition, which must come true before the process ends."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def iteration(folder, model="relu"):
    """Return the iteration of the checkpoint, which must be whole at any moment; 0 if there is none yet."""
    try:
        with np.load(folder / f"{model}.npz") as file:
            return json.loads(str(file["meta"]))["iteration"]
    except FileNotFoundError:
        return 0


def kill(process):
    process.kill()
    process.communicate()
    assert process.returncode == (1 if os.name == "nt" else -signal.SIGKILL), "the run was over before it was killed"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outcome(folder, model="relu"):
    """Return all that a run leaves behind, its times apart."""
    lines = (folder / f"{model}.csv").read_text().splitlines()
    seconds = lines[1].split(",").index("seconds")
    rows = [[word for i, word in enumerate(line.split(",")) if i != seconds] for line in lines[1:]]
    return {"csv": rows, "about": lines[0], **saved(folder / f"{model}.npz", model)}


def saved(path, model="relu"):
    """Return all that a checkpoint holds, its times apart."""
    run = util.load_checkpoint(path, model)
    history = [[str(value) for i, value in enumerate(row) if util.COLUMNS[i] != "seconds"] for row in run.history]
    assert {array.ctypes.data % 64 for array in run.weights.values()} == {0}
    arrays = {**run.weights, **{f"cache of {name}": cache for name, cache in run.caches.items()}, "states": run.states}
    return {**{name: array.tobytes() for name, array in arrays.items()}, "iteration": run.iteration, "rngs": run.rngs,
            "losses": list(run.losses), "history": history, "sha256": run.sha256, "vocabulary": run.vocabulary}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "part.txt"
    path.write_bytes((ROOT / "data" / "play.txt").read_bytes()[:6000])
    return path


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
def killed(text, workers, tmp_path_factory):
    """Return a function that gives the folder of a model's run that was killed at a random moment."""
    def interrupted(model, folder, moment, delay):
        process = begin(model, *TINY, "--train", text, "--out", folder)
        wait_until(process, lambda: iteration(folder, model) >= moment)
        time.sleep(delay)
        kill(process)
        return folder
    runs = {model: workers.submit(interrupted, model, tmp_path_factory.mktemp(model), random.randint(1, 180),
                                  random.uniform(0, 0.03)) for model in MODELS}
    return lambda model="relu": runs[model].result()


@pytest.fixture(scope="module", autouse=os.name != "nt")
def resumed(killed, reference, workers, tmp_path_factory):
    """Return a function that gives the outcome of a model's run that was killed and then resumed."""
    def go_on(model, folder):
        shutil.copytree(killed(model), folder)
        do(model, "--resume", "--no-plot", "--out", folder)
        return outcome(folder, model)
    runs = {model: workers.submit(go_on, model, tmp_path_factory.mktemp(model) / "copy") for model in MODELS}
    return lambda model: runs[model].result()


@pytest.fixture
def stopped(killed, tmp_path):
    """Return a copy of a killed run's folder."""
    return shutil.copytree(killed(), tmp_path / "run")


# Kills and signals -----------------------------------------------------------------------------------------------

@posix
def test_ctrl_c_and_sigterm_save_and_draw_and_the_command_that_they_print_goes_on(reference, text, tmp_path):
    words = [*TINY, "--train", text, "--out", tmp_path]
    for number, status, moment in (signal.SIGINT, 130, 60), (signal.SIGTERM, 143, 200):
        process = begin("relu", *words, "--save-every", 20)
        wait_until(process, lambda moment=moment: iteration(tmp_path) >= moment)
        drawn = (tmp_path / "relu.png").stat().st_mtime_ns
        process.send_signal(number)
        output, errors = end(process, status)
        assert moment <= iteration(tmp_path) < EPOCHS * PER_EPOCH and errors == ""
        assert (tmp_path / "relu.png").stat().st_mtime_ns > drawn
        assert (tmp_path / "relu.png").read_bytes().startswith(b"\x89PNG")
        python, script, *words = shlex.split(re.search("Go on with: (.*)", output)[1])
        assert (python, script) == ("python", "relu.py")
        words.append("--no-plot")
    do("relu", *words)
    assert_same(outcome(tmp_path), reference())


@posix
def test_a_run_stopped_before_its_first_update_resumes_like_any_other(reference, text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    assert process.stdout.readline().startswith("Model")  # then comes Matplotlib's import, so there is time
    process.send_signal(signal.SIGTERM)
    end(process, 143)
    do("relu", "--resume", "--no-plot", "--out", tmp_path)
    assert_same(outcome(tmp_path), reference())


@posix
def test_a_second_ctrl_c_ends_the_run_at_once_and_the_checkpoint_is_whole(text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    wait_until(process, lambda: iteration(tmp_path) >= 20)
    while process.poll() is None:  # the first is handled between two of these; drawing takes a hundred times as long
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGINT and "Stopped" not in output
    assert saved(tmp_path / "relu.npz")["iteration"] >= 20


# Resuming and starting afresh ------------------------------------------------------------------------------------

def test_resuming_with_other_epochs_and_another_learning_rate_is_accepted_and_said(stopped):
    output, _ = do("relu", "--resume", "--no-plot", "--out", stopped, "--epochs", 9, "--learning-rate", 0.005)
    assert "had --epochs 8; it goes on with 9" in output
    assert "had --learning-rate 0.01; it goes on with 0.005" in output
    assert iteration(stopped) == (EPOCHS + 1) * PER_EPOCH


@pytest.mark.parametrize("model, words, difference", [
    ("relu", ["--hidden-size", "32"], "--hidden-size 16, not 32"),
    ("relu", ["--dropout", "0"], "--dropout 0.1, not 0.0"),
    ("relu", ["--train", ROOT / "data" / "play.txt"], "play.txt has"),
    ("tanh", [], "of relu.py"),
])
def test_resuming_something_else_is_refused_in_a_line_that_names_the_difference(model, words, difference, stopped):
    if model != "relu":
        shutil.copy(stopped / "relu.npz", stopped / f"{model}.npz")
    before = files(stopped)
    _, errors = do(model, "--resume", "--no-plot", "--out", stopped, *words, status=2)
    assert difference in errors and errors.count("\n") == 1
    assert {**files(stopped), f"{model}.lock": b""} == {**before, f"{model}.lock": b""}


def test_a_fresh_run_keeps_earlier_runs_under_names_that_it_prints(stopped):
    text = stopped.parent / "short.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 5)
    earlier = []
    for number in 1, 2:
        names = [stopped / f"relu.{number}{suffix}" for suffix in (".npz", ".csv", ".png")]
        earlier += [(path, (stopped / f"relu{path.suffix}").read_bytes()) for path in names]
        output, _ = do("relu", *TINY, "--epochs", 2, "--train", text, "--out", stopped)
        assert f"An earlier run is kept as {', '.join(map(str, names))}" in output
    assert [path for path, content in earlier if path.read_bytes() != content] == []
    assert iteration(stopped) == 2


@posix
def test_two_runs_in_one_folder_are_not_possible_and_the_second_touches_nothing(text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    wait_until(process, lambda: iteration(tmp_path) >= 20)
    process.send_signal(signal.SIGSTOP)  # so that only the second could change anything
    os.waitpid(process.pid, os.WUNTRACED)
    before = files(tmp_path)
    for words in [*TINY, "--train", text], ["--resume", "--no-plot"]:
        output, errors = do("relu", *words, "--out", tmp_path, status=2)
        assert errors.startswith("relu.py: another run writes to") and errors.count("\n") == 1 and output == ""
    assert files(tmp_path) == before
    kill(process)


def test_sampling_from_the_last_checkpoint_works_while_the_run_goes_on(text, tmp_path):
    process = begin("relu", *TINY, "--epochs", 1000, "--save-every", 1, "--train", text, "--out", tmp_path)
    wait_until(process, lambda: iteration(tmp_path) >= 1)
    for _ in range(2):
        output, errors = do("relu", "--sample", 50, "--prime", "the ", "--out", tmp_path)
        assert output.startswith("the ") and len(output) == 4 + 50 + 1 and errors == ""
        assert process.poll() is None
    process.kill()


# Writes that fail ------------------------------------------------------------------------------------------------

def limit(size):
    """Return what makes every write beyond so many bytes of a file fail in a process to be started."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@posix
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_intact(stopped):
    before = files(stopped)
    output, errors = do("relu", "--resume", "--no-plot", "--save-every", 100, "--out", stopped, status=1,
                        preexec_fn=limit(10_000))
    assert f"cannot write {stopped / 'relu.npz'}: File too large; training goes on" in errors.splitlines()
    assert errors.splitlines()[-1] == f"relu.py: the last state is not in {stopped / 'relu.npz'}"
    assert "epoch   8.00/8" in output
    after = files(stopped)
    assert after.keys() == {"relu.npz", "relu.csv", "relu.png", "relu.lock"} and {
        name for name in after if after[name] != before[name]} == {"relu.csv"}


@posix
def test_a_run_that_can_write_nothing_at_all_says_so_line_by_line(text, tmp_path):
    output, errors = do("relu", *TINY, "--epochs", 2, "--train", text, "--out", tmp_path, status=1, preexec_fn=limit(0))
    assert "epoch   2.00/2" in output
    assert {name.split(".")[-1] for name in re.findall(r"cannot \w+ (\S+):", errors)} == {"npz", "csv", "png"}
    for line in filter(None, errors.splitlines()):
        assert re.fullmatch(r"cannot \w+ \S+: .*; training goes on|relu.py: the last state is not in \S+", line)
    assert files(tmp_path) == {"relu.lock": b""}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to change the limits of a process from outside")
def test_a_disk_that_is_full_for_a_while_costs_nothing_in_the_end(reference, text, tmp_path):
    import resource
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    wait_until(process, lambda: iteration(tmp_path) >= 40)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    assert re.fullmatch(r"cannot write \S+: File too large; training goes on\n", process.stderr.readline())
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    end(process)
    assert_same(outcome(tmp_path), reference())


@posix
@pytest.mark.parametrize("suffix", ["csv", "png"])
def test_a_file_of_losses_or_a_plot_that_cannot_be_written_does_not_stop_the_run(suffix, stopped, reference):
    (stopped / f"relu.{suffix}").unlink()
    (stopped / f"relu.{suffix}").mkdir()
    _, errors = do("relu", "--resume", "--no-plot", "--out", stopped)
    assert re.search(rf"^cannot \w+ {re.escape(str(stopped))}/relu.{suffix}: .*; training goes on$", errors, re.M)
    assert (stopped / "relu.png").is_dir() or (stopped / "relu.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in stopped.iterdir()} == {"relu.npz", "relu.csv", "relu.png", "relu.lock"}
    state = saved(stopped / "relu.npz") if suffix == "csv" else outcome(stopped)
    assert_same(state, {name: reference()[name] for name in state})


@posix
def test_a_run_whose_folder_is_removed_ends_well_and_leaves_its_files(reference, text, tmp_path):
    out = tmp_path / "runs"
    process = begin("relu", *TINY, "--train", text, "--out", out)
    wait_until(process, lambda: iteration(out) >= 100)
    out.rename(tmp_path / "away")  # at one stroke: a file could be written while a tree is being removed
    shutil.rmtree(tmp_path / "away")
    end(process)
    assert_same(outcome(out), reference())
    assert (out / "relu.png").read_bytes().startswith(b"\x89PNG")


@posix
def test_a_run_that_nobody_reads_any_more_ends_cleanly_with_a_checkpoint(text, tmp_path):
    process = begin("relu", *TINY, "--train", text, "--out", tmp_path)
    process.stdout.readline()  # as head -1 does
    process.stdout.close()
    process.wait(timeout=60)
    assert (process.returncode, process.stderr.read()) == (128 + signal.SIGPIPE, "")
    assert saved(tmp_path / "relu.npz")["iteration"] < EPOCHS * PER_EPOCH


@posix
def test_sampling_that_nobody_reads_any_more_ends(stopped):
    process = begin("relu", "--sample", 10**9, "--out", stopped)
    process.stdout.read(10)
    process.stdout.close()
    process.wait(timeout=30)
    assert process.stderr.read() == ""


# Damaged files ---------------------------------------------------------------------------------------------------

class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def change(path, **changes):
    """Write a checkpoint again with other arrays (None: without), or other entries of meta, by name."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    for name, value in changes.items():
        (meta if name in meta else arrays)[name] = value
    np.savez(path, **{name: array for name, array in {"meta": json.dumps(meta), **arrays}.items() if array is not None})


def refused(path, capsys, model="relu"):
    """Tell whether a file is refused, which takes one line and exit 2."""
    content = path.read_bytes()
    try:
        util.load_checkpoint(path, model)
        return False
    except SystemExit as stop:
        errors = capsys.readouterr().err
        assert stop.code == 2 and errors.count("\n") == 1 and str(path) in errors
        return True
    finally:
        assert path.read_bytes() == content


def infected(array, value):
    array = array.copy()
    array.flat[-1] = value
    return array


DAMAGE = {
    "it is empty": lambda path, arrays: path.write_bytes(b""),
    "it is text": lambda path, arrays: path.write_text("iteration,epoch\n"),
    "it is of another version": lambda path, arrays: change(path, version=util.CHECKPOINT_VERSION + 1),
    "it is of another model": lambda path, arrays: change(path, model="tanh"),
    "an array is missing": lambda path, arrays: change(path, Whh1=None),
    "meta is missing": lambda path, arrays: change(path, meta=None),
    "an array is one too many": lambda path, arrays: change(path, Whh2=arrays["Whh1"]),
    "an array has another shape": lambda path, arrays: change(path, Whh1=arrays["Whh1"][:-1]),
    "an array has another type": lambda path, arrays: change(path, by=arrays["by"].astype(float)),
    "an accumulator has another shape": lambda path, arrays: change(path, cache_by=arrays["by"][None]),
    "the states have another type": lambda path, arrays: change(path, states=arrays["states"].astype(np.int32)),
    "the losses have another type": lambda path, arrays: change(path, losses=arrays["losses"].astype(str)),
    "the losses have another shape": lambda path, arrays: change(path, losses=arrays["losses"][:, None]),
    "the history has another shape": lambda path, arrays: change(path, history=arrays["history"][:, :-1]),
    "the history has another type": lambda path, arrays: change(path, history=arrays["history"].astype(str)),
    "a weight is not a number": lambda path, arrays: change(path, Whh0=infected(arrays["Whh0"], np.nan)),
    "an accumulator is infinite": lambda path, arrays: change(path, cache_Why=infected(arrays["cache_Why"], np.inf)),
    "a loss is not a number": lambda path, arrays: change(path, losses=infected(arrays["losses"], np.nan)),
    "a generator is missing": lambda path, arrays: change(path, rngs=[]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line_when(damage, stopped, capsys):
    with np.load(stopped / "relu.npz") as file:
        arrays = {name: file[name] for name in file.files}
    damage(stopped / "relu.npz", arrays)
    assert refused(stopped / "relu.npz", capsys)


def test_a_checkpoint_cut_short_anywhere_is_refused(stopped, capsys):
    path = stopped / "relu.npz"
    content = path.read_bytes()
    for length in [1, 3, 4, 21, 22, 23, 100, len(content) - 1, *random.sample(range(len(content)), 30)]:
        path.write_bytes(content[:length])
        assert refused(path, capsys), length


def test_a_checkpoint_with_any_bit_flipped_is_refused_or_loaded_identically(stopped, capsys):
    path = stopped / "relu.npz"
    content, whole = path.read_bytes(), saved(path)
    assert not refused(path, capsys)
    refusals = 0
    for position in random.sample(range(8 * len(content)), 100):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        if refused(path, capsys):
            refusals += 1
        else:
            assert_same(saved(path), whole)
    assert refusals > 50


def test_a_flipped_bit_in_the_header_of_a_large_array_does_not_pass(stopped, capsys):
    path, rng = stopped / "relu.npz", np.random.default_rng(1)
    settings = {**util.load_checkpoint(path, "relu").settings, "hidden_size": 64}
    vocabulary = util.load_checkpoint(path, "relu").vocabulary
    weights = relu.init_weights(len(vocabulary), 64, 2, rng)
    change(path, **weights, settings=settings, states=np.zeros((2, 5, 64), np.float32),
           **{f"cache_{name}": array for name, array in weights.items()})
    content, whole = path.read_bytes(), saved(path)
    with zipfile.ZipFile(path) as file:
        start = content.index(b"\x93NUMPY", file.getinfo("Whh1.npy").header_offset)
    others = random.sample(range(8 * start, 8 * (start + 128)), 50)
    for position in [*range(8 * (start + 8), 8 * (start + 10)), *others]:  # first those of the header's length
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
    assert refused(path, capsys)
    before = files(stopped)
    _, errors = do("relu", "--resume", "--no-plot", "--out", stopped, status=2)
    assert "is no checkpoint to go on from" in errors and errors.count("\n") == 1
    assert files(stopped) == before and not trace.exists()
    with contextlib.suppress(Exception):  # the trap does work
        np.load(path, allow_pickle=True)["states"]
    assert trace.exists()


@pytest.mark.parametrize("words", [["--resume", "--no-plot"], ["--sample", "10"]], ids=["resuming", "sampling"])
def test_nothing_is_overwritten_with_a_damaged_checkpoint_by(words, stopped):
    os.truncate(stopped / "relu.npz", 10_000)
    before = files(stopped)
    output, errors = do("relu", *words, "--out", stopped, status=2)
    assert errors.startswith("relu.py: ") and errors.count("\n") == 1 and output == ""
    assert files(stopped) == before


# Divergence ------------------------------------------------------------------------------------------------------

def test_a_run_that_diverges_stops_and_its_checkpoint_goes_on_with_a_lower_rate(stopped):
    start = saved(stopped / "relu.npz")["iteration"]
    for rate in "1e10", "30":  # at once, and by and by
        _, errors = do("relu", "--resume", "--no-plot", "--out", stopped, "--learning-rate", rate, "--save-every", 1,
                       status=1)
        found = re.fullmatch(r"relu.py: the loss is not finite any more at iteration (\d+); go on from the last "
                             r"checkpoint: python relu.py --resume --learning-rate \S+ --out \S+\n", errors)
        assert found and start <= saved(stopped / "relu.npz")["iteration"] < int(found[1])
    do("relu", "--resume", "--no-plot", "--out", stopped, "--learning-rate", 0.001)
    assert saved(stopped / "relu.npz")["losses"][-1] < 10


def test_a_run_that_diverges_before_its_first_checkpoint_says_to_start_again_with_a_lower_rate(text, tmp_path):
    _, errors = do("nprnn", *TINY, "--train", text, "--out", tmp_path, "--learning-rate", "1e38", status=1)
    assert re.fullmatch(r"nprnn.py: .* at iteration 2; start again with a lower --learning-rate\n", errors)
    assert not (tmp_path / "nprnn.npz").exists()


def test_a_diverged_network_whose_loss_stays_finite_does_not_replace_the_last_good_one(text, tmp_path):
    path = tmp_path / "tanh.npz"
    do("tanh", *TINY, "--epochs", 1, "--train", text, "--out", tmp_path)
    before = path.read_bytes()
    _, errors = do("tanh", "--resume", "--no-plot", "--out", tmp_path, "--epochs", 3, "--learning-rate", 1000,
                   "--save-every", 1, status=1)
    assert errors == f"tanh.py: the network has diverged: the last state is not in {path}\n"
    assert path.read_bytes() == before


def test_divergence_in_the_last_update_of_an_epoch_is_told_too(tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 3)  # one update per epoch
    _, errors = do("stirnn", *TINY, "--train", text, "--out", tmp_path, "--learning-rate", "1e38", status=1)
    assert re.fullmatch(r"stirnn.py: .* at iteration 1; start again with a lower --learning-rate\n", errors)


# What goes on beside all these tests -----------------------------------------------------------------------------

@posix
@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_at_a_random_moment_and_resumed_ends_like_one_that_was_not(model, killed, resumed, reference):
    print(f"killed with a checkpoint of iteration {iteration(killed(model), model)}")
    assert (killed(model) / f"{model}.lock").exists()  # it holds nobody up
    assert_same(resumed(model), reference(model))
