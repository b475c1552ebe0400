"""What several test files need: scripts in processes of their own, what a run leaves behind, and how it is refused."""

import contextlib
import functools
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nprnn
import relu
import stirnn
import tanh
import util

MODELS = [tanh, relu, stirnn, nprnn]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)
ROOT = Path(util.__file__).resolve().parent
EPOCHS, PER_EPOCH = 6, 53  # of a tiny run on the fixture text
TINY = (f"--hidden-size 16 --depth 2 --seq-size 20 --batch-size 5 --epochs {EPOCHS} --warm-up-share 1 --save-every 20 "
        "--no-window").split()  # it is in its warm-up whenever it is stopped
RESUME = "--resume", "--no-window", "--out"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
ENVIRONMENT |= {"PYTHONIOENCODING": "utf-8",
                "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # even a mistake of ours reaches no network
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, limits, files or wording")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc, /dev/full, prlimit or X")
children = []


# Processes -------------------------------------------------------------------------------------------------------

def start(command, env=ENVIRONMENT, **keywords):
    """Start Python with a command, its output and errors read as text unless told otherwise; return the process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    process = subprocess.Popen([sys.executable, *map(str, command)], env=env, **{**pipes, **keywords})
    children.append(process)
    return process


def begin(model, *words, folder=ROOT, **keywords):
    """Start a script; return its process."""
    return start([folder / f"{model}.py", *words], **keywords)


def end(process, status=0):
    """Wait for a process, which must end with that status and without a traceback; return its output and errors."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status and "Traceback" not in errors, (process.returncode, output, errors)
    return output, errors


def do(model, *words, status=0, **keywords):
    return end(begin(model, *words, **keywords), status)


def wait_until(condition, process=None):
    """Wait for a condition, which must come true before the process ends; return what it gives."""
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def kill(process):
    process.kill()
    process.communicate()
    assert process.returncode == (1 if os.name == "nt" else -signal.SIGKILL), "the run was over before it was killed"


# In this process -------------------------------------------------------------------------------------------------

def parse(script, *words):
    return util.parse_options(script.__doc__, script.SETTINGS, [str(word) for word in words])


def of(script, name, **settings):
    """Return a function of a script that takes the settings among its parameters (beta, clip_norm, ...) from there."""
    function = getattr(script, name)
    own = {key: script.SETTINGS[key][0] for key in inspect.signature(function).parameters if key in script.SETTINGS}
    return functools.partial(function, **{**own, **settings})


def train(script, *words, status=None):
    """Train in this process, whose signals stay as they were; with a status it must end the program with that."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code = None
    try:
        with np.errstate(all="ignore"):  # as in util.main()
            script.train(parse(script, *words))
    except SystemExit as stop:
        if status is None:
            raise
        code = stop.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code == status


def refusal(action, *arguments, status=2):
    """Return the line of errors with which an action ends the program; assert that it is one, and the status."""
    errors, code = io.StringIO(), None
    with contextlib.redirect_stderr(errors):
        try:
            action(*arguments)
        except SystemExit as stop:  # not pytest.raises(), which would keep alive what has ended, and its lock
            code = stop.code
    assert code == status and len(errors.getvalue().splitlines()) == 1 and errors.getvalue().endswith("\n")
    return errors.getvalue()


@contextlib.contextmanager
def full_disk(size=0):
    """Have every write beyond so many bytes of a file fail."""
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# What a run leaves behind ----------------------------------------------------------------------------------------

def iteration(folder, model="relu"):
    """Return the iteration of the checkpoint, which must be whole at any moment; 0 if there is none yet."""
    try:
        with np.load(folder / f"{model}.npz") as file:
            return json.loads(str(file["meta"]))["iteration"]
    except FileNotFoundError:
        return 0


def read_losses(folder, model="relu"):
    """Return what a run's file of losses says of it (a dict), and its rows (dicts of words by column)."""
    about, names, *lines = (folder / f"{model}.csv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(names.split(","), line.split(","), strict=True)) for line in lines]
    return json.loads(about.removeprefix("# ")), rows


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def named(suffixes, model="relu"):
    """Return the names of a run's files."""
    return {f"{model}.{suffix}" for suffix in suffixes.split()}


def outcome(folder, model="relu"):
    """Return all that a run leaves behind, its times apart."""
    about, rows = read_losses(folder, model)
    for row in rows:
        del row["seconds"]
    return {"about": about, "rows": rows, "text file": (folder / f"{model}.txt").read_bytes(),
            **saved(folder / f"{model}.npz", model)}


def saved(path, model="relu"):
    """Return all that a checkpoint holds, its times apart."""
    meta, arrays = util.load_checkpoint(path, model)
    del meta["seconds"]
    history = np.delete(arrays.pop("history"), util.COLUMNS.index("seconds"), axis=1)
    return {**meta, **{name: array.tobytes() for name, array in arrays.items()}, "history": str(history.tolist())}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def change(path, **changes):
    """Write a checkpoint again with other entries of meta or other arrays (None: without), or functions of them."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    for name, value in changes.items():
        (meta if name in meta else arrays)[name] = value(arrays[name]) if callable(value) else value
    np.savez(path, **{name: array for name, array in {"meta": json.dumps(meta), **arrays}.items() if array is not None})
