"""What the four scripts share beside their networks: text, batches, command line, files of a run, signals, progress."""

import argparse
import collections
import contextlib
import hashlib
import http.client
import io
import json
import math
import os
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

for library in "OPENBLAS", "MKL", "OMP":  # BLAS on one thread, for the reason that background() gives
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

from graph import COLUMNS, Grapher, write_csv, write_file

# Linux's malloc hands freed arrays back to the system, and then every update pays for getting them anew, page by page.
# Once it has freed an array of nearly 32 MB, it keeps smaller ones for the next update: that is a third of the time.
np.empty(31 * 2**20, np.uint8)

DATA = Path(__file__).resolve().parent / "data"
SHAKESPEARE = ("https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
               "/data/tinyshakespeare/input.txt")
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
VALIDATION = slice(398254, 488961)  # the original's split of tinyshakespeare; training text is all the rest
CHECKPOINT_VERSION = 1
LAST_LOSSES = 100  # updates that the training loss shown is the mean of
DIVERGED = math.log(0x110000)  # nats per character of a blind guess among all of Unicode; worse is not worth saving

stop_signal = None  # the signal that asked for the end of training


def fail(message, status=2):
    """End the program with one line on standard error."""
    warn(f"{Path(sys.argv[0]).name}: {' '.join(message.splitlines())}")
    sys.exit(status)


# Text ------------------------------------------------------------------------------------------------------------

def read_text(path):
    """Return a UTF-8 file's text without a byte-order mark, every newline as \\n. Ends the program if it can't."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        fail(f"{path} is not UTF-8 text (byte {error.start:,} is wrong); convert it first")
    except (OSError, ValueError) as error:
        fail(f"cannot read {path or repr(path)}: {reason(error)}")
    return text or fail(f"{path} is empty")


def vocabulary(*texts):
    """Return the sorted set of the texts' characters, as one string."""
    return "".join(sorted(set().union(*texts)))


def encode(text, characters):
    """Return text as an array (N,) of indices into the sorted characters, in the smallest unsigned type."""
    index = np.zeros(0x110000, np.min_scalar_type(max(len(characters) - 1, 0)))
    index[[ord(character) for character in characters]] = np.arange(len(characters))
    indices = np.empty(len(text), index.dtype)
    for start in range(0, len(text), 2**20):  # by the megabyte: UTF-32 takes four times the room
        piece = text[start:start + 2**20].encode("utf-32-le")
        indices[start:start + 2**20] = index[np.frombuffer(piece, "<u4")]
    return indices


def decode(indices, characters):
    """Return the text of an array of indices: the inverse of encode."""
    return "".join(map(characters.__getitem__, indices))


def one_hot(indices, size, dtype=np.float32):
    """Return vectors (..., size) with a 1 at each of the indices (...)."""
    vectors = np.zeros((indices.size, size), dtype)
    vectors[np.arange(indices.size), indices.ravel()] = 1
    return vectors.reshape(*indices.shape, size)


def batch(text, number, batch_size, seq_size):
    """Return inputs and targets (T, B) of an epoch's batch of that number: targets are the inputs one step later.

    Sequence b reads the b-th of batch_size equal stretches of the encoded text (N,), number * seq_size steps in.
    """
    stretch = (len(text) - 1) // batch_size
    window = np.arange(seq_size + 1)[:, None] + np.arange(batch_size) * stretch + number * seq_size
    characters = text[window]
    return characters[:-1], characters[1:]


def streams(text, count):
    """Return inputs and targets (L, count) that read all of an encoded text (N,) as contiguous streams side by side.

    Each character but the first is a target once; where the last streams have run out of text, the target is -1.
    """
    length = -(-(len(text) - 1) // count)
    position = np.arange(length)[:, None] + np.arange(count) * length
    inside = position < len(text) - 1
    position = np.where(inside, position, 0)
    return text[position], np.where(inside, text[position + 1].astype(np.intp), -1)


def download_shakespeare(folder):
    """Download tinyshakespeare and write its training and validation text; raises OSError, leaves no part of a file."""
    say(f"Downloading tinyshakespeare (1.1 MB) from {SHAKESPEARE}")
    try:
        with urllib.request.urlopen(SHAKESPEARE, timeout=10) as response:
            content = response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"the transfer broke off ({type(error).__name__})") from error
    if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
        raise OSError("what came is not tinyshakespeare (its SHA-256 is wrong)")
    text = content.decode()
    paths = folder / "shakespear_train.txt", folder / "shakespear_val.txt"
    parts = text[:VALIDATION.start] + text[VALIDATION.stop:], text[VALIDATION]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(".tmp", dir=folder) as own:  # another program may be downloading too
        for path, part in zip(paths, parts):
            Path(own, path.name).write_bytes(part.encode())
        for path in paths:
            os.replace(Path(own, path.name), path)


def default_texts():
    """Return the paths of Shakespeare's training and validation text, downloaded if need be, or of the play."""
    paths = DATA / "shakespear_train.txt", DATA / "shakespear_val.txt"
    if not all(path.exists() for path in paths):
        try:
            download_shakespeare(DATA)
        except OSError as error:
            say(f"Shakespeare could not be had: {reason(error)}. "
                "Training on the play that comes with the project, data/play.txt.")
            return DATA / "play.txt", None
    return paths


def load_text(options):
    """Read and encode the texts of the run; ends the program if they are too short for its batches.

    Returns train (N,), validation (M,), vocabulary, name and sha256 (of both texts); notes the paths in options.
    """
    if options.train is None:
        options.train, held_out = default_texts()
        options.val = held_out if options.val is None else options.val
    train = read_text(options.train)
    least = options.batch_size * options.seq_size + 1
    if options.val is not None:
        validation = read_text(options.val)
        if len(validation) < 2:
            fail(f"{options.val} has {len(validation)} character; a validation text needs at least 2")
    else:
        train, validation = train[:len(train) - len(train) // 10], train[len(train) - len(train) // 10:]
        least = max(least + (least - 1) // 9, 20)
    size = len(train) + (len(validation) if options.val is None else 0)
    if size < least:
        fail(f"{options.train} has {size:,} characters; batches of {options.batch_size} x {options.seq_size} steps "
             f"need at least {least:,}")
    options.train, options.val = (path and str(Path(path).resolve()) for path in (options.train, options.val))
    characters = vocabulary(train, validation)
    return SimpleNamespace(train=encode(train, characters), validation=encode(validation, characters),
                           vocabulary=characters, name=Path(options.train).name,
                           sha256=hashlib.sha256(f"{train}\0{validation}".encode()).hexdigest())


# Matrix products on two threads -----------------------------------------------------------------------------------

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
threads = min(2, CORES)
pool = ThreadPoolExecutor(1, initializer=np.seterr, initargs=("ignore",))  # errstate() holds in its own thread only


def background(function, *arguments):
    """Start function(*arguments) on a second thread; return a function that returns its result.

    If it has not begun by the time its result is wanted, or there is no second thread, it is done there and then.
    NumPy works outside Python's lock. BLAS could share out a product too, but its threads wait for each other by
    spinning: when another process needs a core (a second training, say), an update takes ten times as long. This
    thread sleeps, and costs nothing then.
    """
    if threads == 1:
        return lambda: function(*arguments)
    future = pool.submit(function, *arguments)
    return lambda: function(*arguments) if future.cancel() else future.result()


def product(a, b):
    """Return a @ b; if it is large, half of its rows are computed in the background."""
    if a.size * b.shape[1] < 2**23:
        return a @ b
    half, result = len(a) // 2, np.empty((len(a), b.shape[1]), a.dtype)
    rest = background(np.matmul, a[half:], b, result[half:])
    np.matmul(a[:half], b, result[:half])
    rest()
    return result


def padded_zeros(steps, rows, size, dtype):
    """Return zeros (steps, rows, size), and a view of them that has for each step rows up to a multiple of four.

    With AVX2, OpenBLAS takes a fifth more time for 10 rows than for 12. The rows added are those of the next step: a
    row of a product depends on no other row, and those of the rows added are not used.
    """
    padded_rows = rows if rows == 1 else -(-rows // 4) * 4
    flat = np.zeros((steps * rows + padded_rows - rows, size), dtype)
    array = flat[:steps * rows].reshape(steps, rows, size)
    return array, np.ndarray((steps, padded_rows, size), dtype, flat, strides=array.strides)


def aligned(array):
    """Return a copy in C order that starts at a multiple of 64 bytes: small products with it are the fastest.

    With AVX-512 they take a fifth more time if each vector lies in two cache lines, and NumPy aligns to 16 bytes only;
    with a transposed view they take nearly four times as long.
    """
    space = np.empty(array.nbytes + 64, np.uint8)
    start = -space.ctypes.data % 64
    copy = space[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


# Command line ----------------------------------------------------------------------------------------------------

def number(kind, wanted, holds):
    """Return a parser of command-line words for numbers that hold; others raise with what is wanted."""
    def parse(word):
        with contextlib.suppress(ValueError):
            if holds(kind(word)):
                return kind(word)
        raise argparse.ArgumentTypeError(f"{word!r} is not {wanted}")
    return parse


def count(most, least=1):
    return number(int, f"a whole number from {least} to {most:,}", lambda value: least <= value <= most)


def parse_options(description, defaults, words=None):
    """Return the options of the command line as a namespace; given names those typed. Ends the program if bad."""
    positive = number(float, "a number above 0", lambda value: 0 < value < math.inf)
    parser = argparse.ArgumentParser(description=description.splitlines()[0], allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS)
    parser.error = fail

    def add(name, kind, metavar, text):
        value = defaults.get(name)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, metavar=metavar,
                            help=text + (f" (default {value})" if value is not None else ""))

    defaults = {"train": None, "val": None, "out": "runs", "save_every": 1000, "temperature": 0.7, "prime": None,
                "sample": None, "no_plot": False, "quiet": False, "resume": False, **defaults}
    add("train", str, "FILE", "UTF-8 text to train on (default tinyshakespeare, downloaded once)")
    add("val", str, "FILE", "UTF-8 text to validate on (default with --train: its last tenth, held out)")
    add("epochs", count(10**6), "N", "passes over the training text")
    add("hidden_size", count(10**5), "N", "units per layer")
    add("depth", count(1000), "N", "layers")
    add("dropout", number(float, "a number from 0 to below 1", lambda value: 0 <= value < 1 - 2**-16), "P",
        "share of every layer's outputs that is zeroed in training")
    add("learning_rate", positive, "R", "learning rate of RMSProp")
    add("batch_size", count(10**6), "N", "sequences side by side")
    add("seq_size", count(10**6), "N", "steps of back-propagation through time")
    add("seed", count(10**18, least=0), "N", "seed of all random draws; --sample without it differs every time")
    add("out", str, "DIR", "folder for the run's checkpoint, losses and plot")
    add("save_every", count(10**9), "N", "iterations from one checkpoint to the next")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--no-plot", action="store_true", help="open no window (the PNG file is drawn all the same)")
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    add("sample", count(10**9, least=0), "N", "train nothing: print N characters drawn from the saved network")
    add("temperature", positive, "T", "with --sample: below 1 safer, above 1 bolder")
    add("prime", str, "TEXT", "with --sample: text to go on from")
    given = vars(parser.parse_args(words))
    if [] in given.values():  # what Python before 3.13 makes of --prime=--
        fail("-- cannot be an option's value")
    if "sample" not in given and {"prime", "temperature"} & given.keys():
        given["sample"] = 500
    return argparse.Namespace(**{**defaults, **given}, given=given)


def main(model, description, defaults, train, sample):
    """Do what the command line asks of a script: train its network, or sample from the saved one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C outside training ends the program without a traceback
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that can't show a character shows a ? instead
    options = parse_options(description, defaults)
    try:
        if options.sample is not None:
            print_sample(model, options, sample)
        else:
            if options.quiet:
                sys.stdout = open(os.devnull, "w", errors="replace")
            with np.errstate(all="ignore"):  # log() tells when the loss is no longer finite, once
                train(options)
    except MemoryError:
        fail("not enough memory for these sizes; try a smaller --hidden-size, --batch-size or --seq-size")
    sys.exit(128 + stop_signal if stop_signal else 0)


def print_sample(model, options, sample):
    """Print the prime and options.sample characters from the saved network, each as it is drawn."""
    training = options.given.keys() - {"sample", "temperature", "prime", "seed", "out", "no_plot", "quiet"}
    if training:
        fail(f"{', '.join('--' + name.replace('_', '-') for name in sorted(training))} can only be given for training, "
             "and --sample, --temperature and --prime train nothing")
    run = load_checkpoint(Path(options.out) / f"{model}.npz", model)
    prime = options.prime or ""
    unknown = sorted(set(prime) - set(run.vocabulary))
    if unknown:
        fail(f"--prime has {', '.join(map(repr, unknown))}, which the text of this network does not contain")
    rng = np.random.default_rng(options.given.get("seed"))
    say(prime, end="")
    for character in sample(run.weights, run.vocabulary, options.sample, options.temperature, rng, prime):
        say(character, end="")
        if stop_signal:  # nobody reads any more
            return
    say()


# Files of a run --------------------------------------------------------------------------------------------------

SETTINGS = "epochs", "hidden_size", "depth", "dropout", "learning_rate", "batch_size", "seq_size", "seed"


def reason(error):
    """Return what an OSError, one of urllib's included, says in plain words."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause)


def lock(path):
    """Hold an exclusive lock on a file until the process ends, however it ends; ends the program if another has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        fail(f"cannot write to {path.parent}: {reason(error)}; give another folder with --out")
    try:
        if os.name == "nt":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail(f"another run writes to {path.with_suffix('')}.*; wait for its end or give another folder with --out")
    return file


def keep_earlier(path):
    """Rename the files of an earlier run, so that a new one destroys nothing, and say so."""
    earlier = [path.with_suffix(suffix) for suffix in (".npz", ".csv", ".png") if path.with_suffix(suffix).exists()]
    if not earlier:
        return
    taken = {file.name.split(".")[1] for file in path.parent.glob(f"{path.name}.*.*")}
    version = next(n for n in range(1, len(taken) + 2) if str(n) not in taken)
    kept = [file.rename(path.parent / f"{path.name}.{version}{file.suffix}") for file in earlier]
    say(f"An earlier run is kept as {', '.join(map(str, kept))}")


def start(model, options):
    """Return a run: a namespace of all that a checkpoint holds, and beside it options, text, path, lock, grapher.

    A new run has no weights, states and generators yet; with --resume they are those of the checkpoint, whose
    settings and text options then take over. Ends the program if anything stands against the run.
    """
    path = Path(options.out) / model
    held = lock(path.with_suffix(".lock"))
    if options.resume:
        run = load_checkpoint(path.with_suffix(".npz"), model)
        for name, saved in run.settings.items():
            value = options.given.get(name, saved)
            if value != saved and name not in ("epochs", "learning_rate", "train", "val"):
                fail(f"the saved run has --{name.replace('_', '-')} {saved}, not {value}; "
                     "leave the option out, or start a new run without --resume")
            if value != saved and name in ("epochs", "learning_rate"):
                say(f"The saved run had --{name.replace('_', '-')} {saved}; it goes on with {value}")
            setattr(options, name, value)
        text = load_text(options)
        if text.sha256 != run.sha256:
            fail(f"the saved run's text is {run.text_name} with SHA-256 {run.sha256[:12]}...; "
                 f"{text.name} has {text.sha256[:12]}...: give the run's own text with --train and --val")
    else:
        run = SimpleNamespace(iteration=0, seconds=0.0, losses=collections.deque(maxlen=LAST_LOSSES), history=[])
        text = load_text(options)
        keep_earlier(path)
    vars(run).update(model=model, options=options, text=text, path=path, lock=held,
                     first_iteration=run.iteration, seconds_before=run.seconds, shown=0.0, unproven=None)
    run.per_epoch = (len(text.train) - 1) // options.batch_size // options.seq_size
    run.total = options.epochs * run.per_epoch
    if run.iteration >= run.total:
        say(f"{path}.npz has all of its {options.epochs} epochs; --epochs with a larger number goes on from there")
        sys.exit(0)
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, request_stop)
    return run


def introduce(run):
    """Print what is trained on what, and open the plot."""
    options, text = run.options, run.text
    size = sum(array.size for array in run.weights.values())
    about = {
        "Model": f"{run.model}: {options.depth} layers of {options.hidden_size} units, {size:,} weights",
        "Settings": f"{options.epochs} epoch{'s' * (options.epochs > 1)} of {run.per_epoch:,} updates, "
                    f"batch {options.batch_size} x {options.seq_size} steps, learning rate {options.learning_rate:g}, "
                    f"dropout {options.dropout:g}, seed {options.seed}",
        "Text": f"{text.name}: {len(text.train):,} characters to train on, {len(text.validation):,} to validate on, "
                f"{len(text.vocabulary)} distinct",
        "Results": f"{run.path}.csv (losses), {run.path}.png (plot), {run.path}.npz (checkpoint)"}
    for word, line in about.items():
        say_indented(line, word.ljust(9), " " * 9)
    if run.iteration:
        say(f"Resuming after iteration {run.iteration:,} of {run.total:,}")
    say()
    record(run)
    run.grapher = Grapher(f"{run.path}.csv", window=not options.no_plot)
    run.started = time.monotonic()


def snapshot(run):
    """Return the content of a checkpoint of this state, or None if the network has diverged."""
    arrays = {**run.weights, **{f"cache_{name}": cache for name, cache in run.caches.items()}, "states": run.states}
    if not all(np.isfinite(array).all() for array in arrays.values()) or run.losses and run.losses[-1] > DIVERGED:
        return None
    settings = {name: getattr(run.options, name) for name in (*SETTINGS, "train", "val")}
    meta = {"version": CHECKPOINT_VERSION, "model": run.model, "settings": settings, "vocabulary": run.text.vocabulary,
            "text_name": run.text.name, "sha256": run.text.sha256, "iteration": run.iteration, "seconds": run.seconds,
            "rngs": [rng.bit_generator.state for rng in (run.dropout_rng, run.sample_rng)]}
    arrays.update(losses=np.array(run.losses, float), history=np.array(run.history, float), meta=json.dumps(meta))
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getbuffer()


def save(run, content):
    """Write a snapshot as the run's checkpoint, unless it is None; return whether it is on disk."""
    path = run.path.with_suffix(".npz")
    return content is not None and written(path, write_file, lambda file: file.write(content), True)


def load_checkpoint(path, model):
    """Return a saved run as a namespace of its settings, vocabulary, weights (dict of arrays), ...; nothing in the
    file is executed. Ends the program if it is not a whole checkpoint of that model."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if damaged := file.zip.testzip():  # where a damaged header makes an array shorter, NumPy checks no checksum
                raise ValueError(f"{damaged} in it is damaged")
            arrays = {name: file[name] for name in file.files}
        run = SimpleNamespace(**json.loads(str(arrays.pop("meta"))))
        if (run.version, run.model) != (CHECKPOINT_VERSION, model):
            raise ValueError(f"it is of {run.model}.py, version {run.version}, not {model}.py, {CHECKPOINT_VERSION}")
        V, H, D = len(run.vocabulary), run.settings["hidden_size"], run.settings["depth"]
        shapes = {"Why": (H, V), "by": (V,)}
        for d in range(D):
            shapes.update({f"Wxh{d}": (H if d else V, H), f"Whh{d}": (H, H), f"bh{d}": (H,)})
        shapes.update({f"cache_{name}": shape for name, shape in shapes.items()})
        shapes["states"] = D, run.settings["batch_size"], H
        losses, history = arrays.pop("losses"), arrays.pop("history")
        if ((losses.ndim, history.shape[1:], losses.dtype, history.dtype) != (1, (len(COLUMNS),), float, float)
                or not np.isfinite(losses).all()):
            raise ValueError("its losses have a wrong shape or type, or one is not finite")
        run.losses = collections.deque(losses.tolist(), maxlen=LAST_LOSSES)
        run.history = history.tolist() if run.iteration else []  # the loss before the first update is measured again
        for name in shapes.keys() | arrays.keys():
            if arrays[name].shape != shapes[name] or arrays[name].dtype != np.float32:
                raise ValueError(f"{name} has shape {arrays[name].shape} and type {arrays[name].dtype}")
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} has a number that is not finite")
        run.dropout_rng, run.sample_rng = np.random.default_rng(), np.random.default_rng()
        run.dropout_rng.bit_generator.state, run.sample_rng.bit_generator.state = run.rngs
    except (FileNotFoundError, NotADirectoryError):
        fail(f"there is no saved network {path}; train one first: {command(model, path.parent)}")
    except Exception as error:  # a damaged file can fail in any layer: zip, deflate, array header, JSON, our own keys
        fail(f"{path} is no checkpoint to go on from: {' '.join(str(error).split()) or type(error).__name__}")
    run.states = arrays.pop("states")
    run.caches = {name: arrays.pop(f"cache_{name}") for name in list(arrays) if f"cache_{name}" in arrays}
    run.weights = {name: aligned(array) for name, array in arrays.items()}
    return run


def written(path, write, *arguments):
    """Write a file of the run by write(path, *arguments); return whether that worked. If not, say so and go on."""
    try:
        write(path, *arguments)
        return True
    except OSError as error:
        warn(f"cannot write {path}: {reason(error)}; training goes on")
        return False


def record(run):
    """Write the run's losses so far into its CSV file."""
    settings = {name: getattr(run.options, name) for name in SETTINGS}
    about = {"model": run.model, "text": run.text.name, "sha256": run.text.sha256, **settings}
    written(run.path.with_suffix(".csv"), write_csv, about, run.history)


# Signals and progress --------------------------------------------------------------------------------------------

def request_stop(number, frame=None):
    """Handle the first Ctrl-C or SIGTERM: training stops after the update in hand. The next one ends it at once."""
    global stop_signal
    stop_signal = number
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def say(text="", end="\n"):
    """Print and flush; if nobody reads any more (python relu.py | head -1), ask for the end of training."""
    global stop_signal
    try:
        print(text, end=end, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w", errors="replace")
        stop_signal = stop_signal or 13  # SIGPIPE, which Windows has no name for


def warn(text):
    """Print a line on standard error, whose reader may be gone too."""
    end_progress_line()
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def on_terminal():
    return sys.stdout is not None and sys.stdout.isatty()


def say_indented(line, first, others):
    """Print a line that begins with first; on a terminal it is broken at its width, between words, after others."""
    width = shutil.get_terminal_size().columns if on_terminal() else sys.maxsize
    say(textwrap.fill(line, width, initial_indent=first, subsequent_indent=others) or first)


progress_width = 0  # of the line that the next one is to overwrite


def end_progress_line():
    global progress_width
    if progress_width:
        progress_width = 0
        say()


def show_progress(run, whole_line):
    """Rewrite the progress line in place; elsewhere than on a terminal, print a line at the end of an epoch."""
    global progress_width
    updates, seconds = run.iteration - run.first_iteration, time.monotonic() - run.started
    rate = updates / seconds
    left = int((run.total - run.iteration) / rate)
    validation_loss = next(row[3] for row in reversed(run.history) if not math.isnan(row[3]))
    line = (f"epoch {run.iteration / run.per_epoch:6.2f}/{run.options.epochs}  "
            f"iteration {run.iteration:,}/{run.total:,}  train {np.mean(run.losses):.3f}  "
            f"validation {validation_loss:.3f}  "
            f"{rate * run.options.batch_size * run.options.seq_size:,.0f} char/s  "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
    if on_terminal():
        columns = shutil.get_terminal_size().columns - 1
        for words, shorter in ("iteration ", ""), ("validation", "val"), (" char/s", "/s"), ("  ", " "):
            line = line if len(line) <= columns else line.replace(words, shorter)
        line = line[:columns]
        say("\r" + line.ljust(progress_width), end="")
        progress_width = len(line)
    else:
        say(line)
    if whole_line:
        end_progress_line()


def log(run, loss=None, validation_loss=math.nan, sample=None, penalty=math.nan):
    """Take note of an update's loss: progress, a row of losses and the plot now and then, and the checkpoint when due.

    Losses are in nats per character. At the end of an epoch there are a validation loss and a sample too. Ends the
    program when a loss is not finite. A checkpoint that is due is written when the next update's loss shows that its
    state is a good one: a state that is bound to diverge looks like any other.
    """
    options = run.options
    if loss is None:
        run.started = time.monotonic()  # the clock starts with the first update
    else:
        run.losses.append(float(loss))
    run.seconds = run.seconds_before + time.monotonic() - run.started
    if not math.isfinite(loss or 0) or not math.isfinite(validation_loss if loss is None or sample is not None else 0):
        run.grapher.draw()
        words = "--resume", "--learning-rate", f"{options.learning_rate / 2:g}"
        advice = f"go on from the last checkpoint: {command(run.model, options.out, *words)}"
        if not run.path.with_suffix(".npz").exists():
            advice = "start again with a lower --learning-rate"
        fail(f"the loss is not finite any more at iteration {run.iteration:,}; {advice}", status=1)
    if run.losses and run.losses[-1] <= DIVERGED:
        save(run, run.unproven)
    run.unproven = None
    if run.iteration % 100 == 0 or sample is not None:
        train_loss, batch_loss = (np.mean(run.losses), run.losses[-1]) if run.losses else (math.nan, math.nan)
        run.history.append([run.iteration, run.iteration / run.per_epoch, train_loss, validation_loss, run.seconds,
                            batch_loss, penalty])
        record(run)
        run.grapher.update()
    now = time.monotonic()
    if run.losses and (sample is not None or now - run.shown > (0.2 if on_terminal() else 60)):
        run.shown = now
        show_progress(run, whole_line=sample is not None)
    if sample is not None:
        say()
        for line in "".join(sample).splitlines():
            say_indented(line, " " * 4, " " * 4)
        say()
    if run.losses and run.iteration % options.save_every == 0:
        run.unproven = snapshot(run)


def command(model, out, *words):
    """Return the command line of a script with those words and, where it is not the default, the output folder."""
    return shlex.join(["python", f"{model}.py", *words, *(["--out", str(out)] * (str(out) != "runs"))])


def finish(run):
    """Save and draw what there is when training ends, by itself or by a signal, and say how to go on."""
    content = snapshot(run)
    saved = save(run, content)
    record(run)
    run.grapher.draw()
    end_progress_line()
    if not saved:
        why = "the network has diverged: " if content is None else ""
        fail(f"{why}the last state is not in {run.path}.npz", status=1)
    if run.iteration < run.total:
        say(f"Stopped after iteration {run.iteration:,} of {run.total:,}. Go on with: "
            f"{command(run.model, run.options.out, '--resume')}")
    else:
        say(f"Done. Draw characters from the network: {command(run.model, run.options.out, '--sample', '500')}")
