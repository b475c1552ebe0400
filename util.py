"""What the four scripts share beside their networks: text, batches, two processes, the command line, a run's files."""

import argparse
import collections
import contextlib
import difflib
import errno
import functools
import hashlib
import http.client
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
import zipfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent / "data"
PLAY = DATA / "play.txt"
PLAY_EPOCHS = 10  # relu.py ends at 1.44 after 8 or 10, 1.45 after 12, 1.54 after 24: by then it knows the play by heart
SHAKESPEARE = ("https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
               "/data/tinyshakespeare/input.txt")
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
VALIDATION = slice(398254, 488961)  # the original's split of tinyshakespeare; training text is all the rest
COLUMNS = "iteration", "epoch", "train_loss", "validation_loss", "penalty", "seconds"
VERSION = 2  # of checkpoints and files of losses
LAST_LOSSES = 100  # updates that the training loss shown is the mean of; fewer where epochs are short
ENOUGH = 250  # updates; a run of fewer is told to be very short
EARLY = 100, 300  # iterations of the first epoch with a validation and a sample, besides 0 and the end of every epoch
JOIN = subprocess.list2cmdline if os.name == "nt" else shlex.join  # words to what is typed, in the Command Prompt too
GONE = 128 + 13  # exit status of a program that nobody reads any more: SIGPIPE's, which Windows has no name for
DIVERGED = math.log(0x110000)  # nats per character of a blind guess among all of Unicode; worse is not worth saving


def say(text, end="\n"):
    """Print; return 0, GONE if nobody reads any more (python relu.py | head -1), or 1 after any other failure.

    That is told, and as standard output is closed, once.
    """
    try:
        print(text, end=end, flush=True)
        return 0
    except OSError as error:
        sys.stdout = None  # which print() knows
        if isinstance(error, BrokenPipeError) or os.name == "nt" and error.errno == errno.EINVAL:
            return GONE
        warn(f"cannot print: {reason(error)}")
        return 1


def warn(text):
    """Print a line on standard error, whose reader may be gone too."""
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.write(f"{text}\n")  # not print(), which takes standard output where there is no standard error


def fail(message, status=2):
    """End the program with one line on standard error."""
    warn(f"{Path(sys.argv[0]).name}: {' '.join(message.splitlines())}")
    sys.exit(status)


def reason(error):
    """Return what an OSError, one of urllib's included, says in plain words."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause)


# Text ------------------------------------------------------------------------------------------------------------

def read_text(path, option="--train"):
    """Return a UTF-8 file's text without a byte-order mark, every newline as \\n. Ends the program if it can't."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        fail(f"{path} is not UTF-8 text (byte {error.start:,} is wrong); save it as UTF-8 in an editor")
    except OSError as error:
        fail(f"cannot read {path or repr(path)}: {reason(error)}; give a text with {option}")
    if not text:
        fail(f"{path} is empty")
    return text


def encode(text, vocabulary):
    """Return text as an array (N,) of indices into the sorted vocabulary, in the smallest unsigned type."""
    index = {character: i for i, character in enumerate(vocabulary)}
    smallest = np.min_scalar_type(max(len(vocabulary) - 1, 0))
    return np.fromiter(map(index.__getitem__, text), smallest, len(text))


def one_hot(indices, size, dtype=np.float32):
    """Return vectors (..., size) with a 1 at each of the indices (...)."""
    return (indices[..., None] == np.arange(size)).astype(dtype)


def batch(text, number, batch_size, seq_size):
    """Return inputs and targets (T, B) of an epoch's batch of that number: targets are the inputs one step later.

    Sequence b reads the b-th of batch_size equal stretches of the encoded text (N,), number * seq_size steps in.
    """
    stretch = (len(text) - 1) // batch_size
    window = np.arange(seq_size + 1)[:, None] + np.arange(batch_size) * stretch + number * seq_size
    return text[window[:-1]], text[window[1:]]


def streams(text, count, seq_size):
    """Yield inputs and targets (up to seq_size, count) that read all of an encoded text (N,) as streams side by side.

    Each character but the first is a target once; where the last streams have run out of text, the target is -1.
    """
    length = math.ceil((len(text) - 1) / count)
    padding = 0, length * count - (len(text) - 1)
    inputs = np.pad(text[:-1], padding).reshape(count, length).T
    targets = np.pad(text[1:].astype(np.intp), padding, constant_values=-1).reshape(count, length).T
    for start in range(0, length, seq_size):
        yield inputs[start:start + seq_size], targets[start:start + seq_size]


def default_texts():
    """Return the paths of Shakespeare's training and validation text, downloaded if need be, or of the play."""
    paths = DATA / "shakespear_train.txt", DATA / "shakespear_val.txt"
    if all(path.exists() for path in paths):
        return paths
    say(f"Downloading tinyshakespeare (1.1 MB) from {SHAKESPEARE.split('/')[2]}")
    try:
        with urllib.request.urlopen(SHAKESPEARE, timeout=10) as response:
            content = response.read()
        if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
            raise OSError("what came is not tinyshakespeare (its SHA-256 is wrong)")
        parts = content[:VALIDATION.start] + content[VALIDATION.stop:], content[VALIDATION]  # ASCII, a byte a character
        with tempfile.TemporaryDirectory(".tmp", dir=DATA) as own:  # another program may be downloading too
            for path, part in zip(paths, parts):
                Path(own, path.name).write_bytes(part)
            for path in paths:
                os.replace(Path(own, path.name), path)
        return paths
    except OSError as error:
        why = reason(error)
    except (http.client.HTTPException, ValueError) as error:
        why = f"the transfer broke off ({type(error).__name__})"
    warn(f"Shakespeare was not downloaded: {why}. Training on the project's play, data/play.txt; "
         "the next run tries again")
    return PLAY, None


Text = collections.namedtuple("Text", "train validation vocabulary path sha256")


def load_text(options, on_play=False):
    """Return the Text of a run: train (N,) and validation (M,) encoded, vocabulary, path, sha256 of both parts.

    on_play: without a text in the options it is the play. Ends the program if the text is too short for its batches.
    """
    path, held_out = options.train, options.val
    if path is None:
        path, default = (PLAY, None) if on_play else default_texts()
        held_out = default if held_out is None else held_out
    train = read_text(path)
    size, needed = len(train), options.batch_size * options.seq_size + 1
    if held_out is None:
        train, validation = train[:size - size // 10], train[size - size // 10:]
        needed = max(needed + (needed - 1) // 9, 20)
    else:
        validation = read_text(held_out, "--val")
        if len(validation) < 2:
            fail(f"{held_out} has {len(validation)} character; a validation text needs at least 2")
        if options.val and validation in train:
            warn(f"{held_out} is part of {path}: its loss says nothing about any other text")
    if size < needed:
        fail(f"{path} has {size:,} characters; batches of {options.batch_size} x {options.seq_size} steps "
             f"need at least {needed:,}: give a longer text, or smaller --batch-size and --seq-size")
    vocabulary = "".join(sorted(set(train) | set(validation)))
    return Text(encode(train, vocabulary), encode(validation, vocabulary), vocabulary, Path(path),
                hashlib.sha256(f"{train}\0{validation}".encode()).hexdigest())


# Two processes ---------------------------------------------------------------------------------------------------

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_halves(forward_backward, weights, inputs, targets, states, masks, *settings):
    """Return forward_backward's result; the second half of the sequences is computed by a process of its own.

    Losses and gradients are means over the sequences, states (D, B, H) are put together. The halves depend on the
    sizes alone, so that results are the same to the last bit on any number of cores. Small networks are not shared
    out: handing over takes longer than it saves. Two threads would often wait for the GIL: steps are short.
    """
    _, B, H = states.shape
    if B == 1 or H < 64:
        return forward_backward(weights, inputs, targets, states, masks, *settings)

    def half(part):  # contiguous, as send() wants them
        arrays = inputs[:, part], targets[:, part], states[:, part], masks[:, :, part]
        return weights, *map(np.ascontiguousarray, arrays), *settings

    halves = half(slice(B // 2)), half(slice(B // 2, B))
    second = None
    with contextlib.suppress(EOFError, OSError, pickle.PicklingError, AttributeError):  # ended, or under a debugger
        if CORES > 1:
            arrays = *weights.values(), inputs, targets, states, masks  # larger than a half of them, or its result
            process = second_process(sum(array.nbytes for array in arrays))
            send(*process, (forward_backward, halves[1]))
            first = forward_backward(*halves[0])
            second = receive(*process)
    if second is None:
        first, second = (forward_backward(*half) for half in halves)
    share = B // 2 / B
    means = [share * a + (1 - share) * b for a, b in zip(first[:-2], second[:-2])]
    grads = {name: share * grad + (1 - share) * second[-2][name] for name, grad in first[-2].items()}
    return *means, grads, np.concatenate([first[-1], second[-1]], axis=1)


@functools.lru_cache(maxsize=1)
def second_process(size):
    """Return a connection to a process that calls what it is sent, and that many bytes of memory shared with it.

    The first call of a size starts the process.
    """
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")  # inherits no lock, and is the same on every system
    memory = context.RawArray("B", size)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process: this is inherited
    try:
        context.Process(target=call_what_comes, args=(theirs, memory), daemon=True).start()
    finally:
        signal.signal(signal.SIGINT, handler)
    theirs.close()
    return ours, memory


def call_what_comes(connection, memory):
    """Call the functions that come, with their arguments, and send back what they return, until nothing comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows inherits nothing
    with contextlib.suppress(EOFError, OSError, MemoryError), np.errstate(all="ignore"):
        while True:
            function, arguments = receive(connection, memory)
            send(connection, memory, function(*arguments))


def send(connection, memory, message):
    """Send a message, contiguous arrays by the shared memory: through the connection they took a ninth of an update."""
    arrays, places, start = [], [], 0
    pickled = pickle.dumps(message, 5, buffer_callback=arrays.append)
    for array in map(pickle.PickleBuffer.raw, arrays):
        places.append(slice(start, start + array.nbytes))
        memoryview(memory).cast("B")[places[-1]] = array
        start += math.ceil(array.nbytes / 8) * 8  # where an array of any type may begin
    connection.send((pickled, places))


def receive(connection, memory):
    """Return the message that comes; its arrays are in the shared memory, and good until the next message."""
    pickled, places = connection.recv()
    return pickle.loads(pickled, buffers=map(memoryview(memory).cast("B").__getitem__, places))


def set_up_processor():
    """Start the program anew with what NumPy reads from the environment only while it is loaded.

    Its BLAS is to use one thread: more wait for each other by spinning, and when another process needs a core (a
    second training, say), an update takes ten times as long. And glibc is to keep the memory of arrays that are gone:
    to have it back page by page took a sixth of an update.
    """
    threads = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
    memory = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}  # old glibcs take no more
    wanted = {**dict.fromkeys(threads, "1"), **memory, **os.environ}
    flags = sys.orig_argv[1:-len(sys.argv)]
    if wanted == os.environ or sys.orig_argv[-len(sys.argv):] != sys.argv or not all(f[:1] == "-" for f in flags):
        return  # it is as it should be, or this is no plain 'python relu.py ...': a debugger, a notebook
    command = [sys.executable, *sys.orig_argv[1:]]
    if os.name == "nt":  # whose exec does not wait
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(subprocess.call(command, env=wanted))
    os.execve(sys.executable, command, wanted)


# Command line ----------------------------------------------------------------------------------------------------

OPTIONS = {  # beside the settings of a script, and like them: value, least, most (of a text: its sign), what it is
    "train": (None, None, "FILE", "UTF-8 text to train on (default tinyshakespeare, downloaded once)"),
    "val": (None, None, "FILE", "UTF-8 text to validate on (default with --train: its last tenth, held out)"),
    "save_every": (1000, 1, 10**9, "updates from one checkpoint to the next"),
    "resume": (False, None, None, "go on from the run's last checkpoint"),
    "no_window": (False, None, None, "open no window (the PNG file is drawn all the same)"),
    "quiet": (False, None, None, "print warnings and errors only"),
    "out": ("runs", None, "DIR", "folder of the run's files"),
    "sample": (None, 0, 10**9, "train nothing: print N characters (500 without N) drawn from the saved network"),
    "temperature": (0.7, 0, 1e300, "with --sample: below 1 safer, above 1 bolder, 0 always the likeliest"),
    "prime": (None, None, "TEXT", "with --sample: text to go on from"),
    "prime_file": (None, None, "FILE", "with --sample: file with the text to go on from"),
    "evaluate": (None, None, "FILE", "train nothing: print the saved network's loss on a UTF-8 text"),
}
SAMPLING = {"temperature", "prime", "prime_file"}


def number(kind, least, most):
    """Return a parser of command-line words for numbers from least to most."""
    def parse(word):
        with contextlib.suppress(ValueError):
            if least <= kind(word) <= most and math.isfinite(kind(word)):
                return kind(word)
        bounds = f"of at least {least:,}" if most == math.inf else f"from {least:,} to {most:,}"
        raise argparse.ArgumentTypeError(f"{word!r} is not a {'whole ' if kind is int else ''}number {bounds}")
    return parse


def parse_options(description, settings, words=None):
    """Return the options of the command line: a namespace of their values, and of given, the dict of those typed.

    settings are a script's, by name: (value, least, most, what it is). Ends the program if the words are wrong.
    """
    summary = "\n\n".join(description.split("\n\n")[:2])  # what it is and how to run it: equations are for reading
    parser = argparse.ArgumentParser(description=summary, allow_abbrev=False, argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = fail
    for name, (value, least, most, what) in {**settings, **OPTIONS}.items():
        kind = type(most)  # not of the value: who edits 0.1 in a script to 0 may still type 0.2
        form = {"type": number(kind, least, most), "metavar": "X" if kind is float else "N"}
        if value is False:
            form = {"action": "store_true"}
        elif least is None:
            form = {"metavar": most}
        elif name == "sample":
            form.update(nargs="?", const=500)
        default = "" if value is None or value is False else f" (default {value})"
        parser.add_argument(option(name), help=what + default, **form)
    known, unknown = parser.parse_known_args(words)
    given = vars(known)
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], map(option, {**settings, **OPTIONS}), 1, 0.7)
        if os.path.isfile(unknown[0]):
            near = [option("train", unknown[0])]
        hint = f"did you mean {near[0]}?" if near else "--help lists all; a value of several words takes quotes"
        fail(f"there is no option {unknown[0]!r}; {hint}")
    if [] in given.values():  # what Python before 3.13 makes of --prime=--
        fail("-- cannot be an option's value")
    training = settings.keys() - {"seed"} | {"train", "val", "save_every", "resume"}
    for mode, others in (("sample", training | {"evaluate"}), ("evaluate", training | SAMPLING),
                         ("prime_file", {"prime"})):
        wrong = sorted(map(option, given.keys() & others))
        if mode in given and wrong:
            fail(f"{', '.join(wrong)} cannot be given with {option(mode)}")
    for name in sorted(SAMPLING & given.keys()):
        if "sample" not in given:
            fail(f"{option(name)} goes with --sample: --sample {option(name, given[name])}")
    values = {name: value for name, (value, *_) in {**settings, **OPTIONS}.items()}
    defaults = {name: values[name] for name in settings}
    return argparse.Namespace(**{**values, **given}, defaults=defaults, given=given)


def option(name, *values):
    """Return an option as it is typed."""
    return JOIN([f"--{name.replace('_', '-')}", *map(str, values)])


def set_up_console():
    """Let Ctrl-C outside training end the program without a traceback, and what can't be shown be shown as a ?."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def set_up_matplotlib():
    """End the program with one line if Matplotlib is missing, or its settings are wrong."""
    if os.environ.get("MPLBACKEND", "").startswith("module://"):  # a notebook's; Matplotlib may not find it here
        del os.environ["MPLBACKEND"]
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        fail("No Matplotlib. Type . .venv/bin/activate (Windows: .venv\\Scripts\\activate), see README.md")
    except ValueError as error:  # of MPLBACKEND
        fail(f"Matplotlib does not start: {error}")
    warnings.filterwarnings("ignore", "Glyph .* missing")  # a file's name in a script that its font lacks


def main(model, description, settings, train, evaluate_loss, sample):
    """Do what the command line asks of a script: train its network, or sample from the saved one, or evaluate it."""
    set_up_processor()
    set_up_console()
    options = parse_options(description, settings)
    try:
        with np.errstate(all="ignore"):  # a run tells when the loss is no longer finite, once
            if options.sample is not None:
                print_sample(model, options, sample)
            elif options.evaluate is not None:
                print_evaluation(model, options, evaluate_loss)
            else:
                set_up_matplotlib()
                if options.quiet:
                    sys.stdout = None
                train(options)
    except OSError as error:
        fail(f"{error.filename or model}: {reason(error)}", status=1)
    except MemoryError:
        fail("not enough memory; try a smaller --hidden-size, --batch-size or --seq-size, or a shorter text or prime")


def print_sample(model, options, sample):
    """Print the prime and options.sample characters from the saved network, each as it is drawn."""
    prime = options.prime or ""
    if options.prime_file is not None:
        prime = read_text(options.prime_file, "--prime-file")
    weights, meta = load_network(model, options.given.get("out"), options.quiet)
    unknown = sorted(set(prime) - set(meta["vocabulary"]))
    if unknown:
        hint = "; a newline is typed as Enter, between the quotes" if "\\" in unknown and options.prime else ""
        names = ", ".join(map(repr, unknown[:10])) + (" and others" if len(unknown) > 10 else "")
        fail(f"the prime has {names}, which the text of this network does not contain{hint}")
    rng = np.random.default_rng(options.given.get("seed"))
    temperature = max(options.temperature, 1e-300)  # which is as good as 0, and can divide
    drawn = sample(weights, meta["vocabulary"], options.sample, temperature, rng, prime)
    for text in itertools.chain([prime], drawn, "\n"):
        if status := say(text, end=""):
            sys.exit(status)


def print_evaluation(model, options, evaluate_loss):
    """Print the loss of a text under the saved network."""
    text = read_text(options.evaluate, "--evaluate")
    weights, meta = load_network(model, options.given.get("out"), options.quiet)
    vocabulary = meta["vocabulary"]
    unknown = collections.Counter(character for character in text if character not in vocabulary)
    text = "".join(character for character in text if character in vocabulary)
    if len(text) < 2:
        fail(f"{options.evaluate} has {len(text)} of the characters that the network knows; it needs at least 2")
    loss = evaluate_loss(weights, encode(text, vocabulary))
    told = (f"{loss:.4f} nats per character, {loss / math.log(2):.4f} bits, perplexity {math.exp(min(loss, 700)):.4g}; "
            f"{len(text) - 1:,} characters predicted")
    if unknown:
        names = ", ".join(f"{character!r} {count:,}" for character, count in unknown.most_common(10))
        others = f" and {len(unknown) - 10:,} others" if len(unknown) > 10 else ""
        told += f"\n{unknown.total():,} characters that the network does not know were left out: {names}{others}"
    if status := say(told):
        sys.exit(status)


# Saved networks --------------------------------------------------------------------------------------------------

def read_checkpoint(path, model):
    """Return what is in a checkpoint: meta (a dict) and arrays by name ('weights/Whh0', 'caches/Whh0', ...).

    Without the generators' states it is a network that comes with the project: its best weights only, in float16.
    Nothing in the file is executed. Raises OSError, or ValueError or an error of another layer if it is not whole.
    """
    with zipfile.ZipFile(path) as archive:  # read() checks the checksum of all there is, NumPy of what it takes
        files = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    arrays = {name: np.lib.format.read_array(file, allow_pickle=False) for name, file in files.items()}
    meta = json.loads(str(arrays.pop("meta")))
    if (meta["version"], meta["model"]) != (VERSION, model):
        raise ValueError(f"it is of {meta['model']}.py, version {meta['version']}, not {model}.py, {VERSION}")
    V, H, D = len(meta["vocabulary"]), meta["settings"]["hidden_size"], meta["settings"]["depth"]
    weights = {"Why": (H, V), "by": (V,)}
    for d in range(D):
        weights.update({f"Wxh{d}": (H if d else V, H), f"Whh{d}": (H, H), f"bh{d}": (H,)})
    alone = "rngs" not in meta
    kinds = ["best"] if alone else ["weights", "caches", "best"]
    shapes = {f"{kind}/{name}": shape for kind in kinds for name, shape in weights.items()}
    if not alone:
        if len(meta["rngs"]) != 2:
            raise ValueError("the state of a random generator is missing")
        shapes.update({"states": (D, meta["settings"]["batch_size"], H),
                       "losses": (min(meta["iteration"], LAST_LOSSES),),
                       "history": (len(arrays["history"]), len(COLUMNS))})
    for name in shapes.keys() | arrays.keys():
        dtype = np.float64 if name in ("losses", "history") else np.float16 if alone else np.float32
        if arrays[name].shape != shapes[name] or arrays[name].dtype != dtype:
            raise ValueError(f"{name} has shape {arrays[name].shape} and type {arrays[name].dtype}")
        if name != "history" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} has a number that is not finite")
    return meta, arrays


def load_checkpoint(path, model):
    """Return meta and arrays of read_checkpoint(); ends the program if the file is not a whole checkpoint."""
    try:
        return read_checkpoint(path, model)
    except (FileNotFoundError, NotADirectoryError):
        fail(f"there is no saved network {path} (a run saves its first after an epoch at the latest); "
             f"train one first: {command(model, path.parent)}")
    except Exception as error:  # a damaged file can fail in any layer: zip, deflate, array header, JSON, our own keys
        fail(f"{path} is no saved network that can be used: {str(error) or type(error).__name__}")


def load_network(model, folder=None, quiet=False):
    """Return weights and meta of a run's network of the lowest validation loss; says which it is, unless quiet."""
    path = Path("runs" if folder is None else folder) / f"{model}.npz"
    if folder is None and not path.exists() and (DATA / path.name).exists():
        path = DATA / path.name  # where there is no run, the network that comes with the project
    meta, arrays = load_checkpoint(path, model)
    if not quiet:
        warn(f"{path}: the network of epoch {meta['best_epoch']:.4g}, validation loss {meta['best_loss']:.4f}")
        if meta["best_epoch"] == 0:
            warn("It has learned nothing yet")
        if "rngs" not in meta:
            warn(f"It comes with the project, trained on {meta['text_name']}.")
            warn(f"To train your own: {command(model, 'runs')}")
        if folder is None and path.parent == DATA:
            if Path("runs", f"{model}.csv").exists():
                warn("Your run in runs has not saved one yet: it does so after an epoch at the latest")
            earlier = max(Path("runs").glob(f"*/{path.name}"), key=os.path.getmtime, default=None)
            if earlier:
                warn(f"Your last one before is in {earlier.parent}: --out {earlier.parent}")
    return {name: array.astype(np.float32) for name, array in part(arrays, "best").items()}, meta


def part(arrays, kind):
    """Return the arrays of one kind ('weights', 'caches', 'best') under their own names."""
    return {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{kind}/")}


def write_file(path, content, durable=False):
    """Replace a file (a Path) as a whole by content (bytes), or leave it as it was; raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        for pause in 0.01, 0.1, 1:  # on Windows a file can't be replaced while another program reads it
            with contextlib.suppress(PermissionError):
                os.replace(temporary, path)
                return
            time.sleep(pause)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # it is there only if something failed


def command(model, out, *words):
    """Return the command line of a script with those words and, where it is not the default, the output folder."""
    place = [] if str(out) == "runs" else ["--out", str(out)]
    script = Path(f"{model}.py")  # where the user is, or where this file is
    return JOIN(["python", str(script if script.exists() else Path(__file__).with_name(script.name)), *words, *place])


# A run -----------------------------------------------------------------------------------------------------------

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
    except (BlockingIOError, PermissionError):
        fail(f"another run writes to {path.with_suffix('')}.*; wait for its end or give another folder with --out")
    except OSError as error:
        fail(f"cannot lock {path}: {reason(error)}; give another folder with --out")
    return file


class Run:
    """A training run: its text and options, where it stands, and its files runs/MODEL.npz, .csv and .txt.

    A new run has no weights and caches yet; with options.resume they are those of the checkpoint, whose settings the
    options then take over. Losses are in nats per character. Ends the program if the run cannot start.
    """

    def __init__(self, model, options):
        self.model, self.options = model, options
        self.path = Path(options.out) / model
        if self.path.parent.exists() and self.path.parent.samefile(DATA):
            fail("data/ holds the networks that come with the project; give another folder with --out")
        self.checkpoint, self.csv, self.txt = map(self.path.with_suffix, (".npz", ".csv", ".txt"))
        self.weights, self.caches, self.states = {}, {}, None
        self.best_weights, self.best_loss, self.best_epoch = {}, math.inf, 0.0  # those of the lowest validation loss
        self.iteration = self.first_iteration = 0  # first_iteration: where this process began
        self.losses = collections.deque(maxlen=LAST_LOSSES)
        self.validation_loss = self.penalty = math.nan  # the latest
        self.history, self.samples = [], []  # rows of the CSV file, paragraphs of the text file
        self.seconds_before = self.started = 0.0  # what training took before; when it would have begun
        self.pending = None  # the content of a checkpoint that waits for the loss that proves its state
        self.stop = 0  # the number of the signal that asked for the end of training
        self.shown, self.progress_width = 0.0, 0  # when the progress line was printed last, and how wide it is
        seeds = np.random.SeedSequence(options.seed).spawn(3)
        self.init_rng, self.dropout_rng, self.sample_rng = map(np.random.default_rng, seeds)
        changed = {}
        if options.resume:
            changed = self.resume()
        else:
            self.text = load_text(options)
            if self.text.path.resolve() == PLAY and "epochs" not in options.given:
                options.epochs = PLAY_EPOCHS
                self.say(f"The play is short: {PLAY_EPOCHS} epochs will do (--epochs N for another number)")
        self.lock = lock(self.path.with_suffix(".lock"))
        if not options.resume:
            self.keep_earlier()
        self.settings = {name: getattr(options, name) for name in options.defaults}
        self.per_epoch = (len(self.text.train) - 1) // options.batch_size // options.seq_size
        self.total = options.epochs * self.per_epoch
        if self.iteration >= self.total:
            say(f"{self.checkpoint} is at epoch {self.iteration / self.per_epoch:.4g}; "
                "a larger --epochs goes on from there, at the learning rate of a run that long")
            sys.exit(0)
        for name, saved in changed.items():
            self.say(f"The saved run had {option(name, saved)}; it goes on with {getattr(options, name)}")
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGTERM, self.request_stop)

    def resume(self):
        """Take over what the checkpoint holds; return the saved values of settings that differ now, as two may."""
        meta, arrays = load_checkpoint(self.checkpoint, self.model)
        if "rngs" not in meta:
            fail(f"{self.checkpoint} is a network that comes with the project; training can't go on from it")
        options, settings, defaults = self.options, meta["settings"], meta["defaults"]
        if settings.keys() != options.defaults.keys():
            fail(f"{self.checkpoint} is of another version of {self.model}.py: the settings are not the same")
        for name, saved in settings.items():
            edited = options.defaults[name] != defaults[name]
            value = options.given.get(name, options.defaults[name] if edited else saved)
            if value != saved and name not in ("epochs", "learning_rate"):
                fail(f"the saved run has {option(name, saved)}, not {value}; "
                     "go on with its own value, or start a new run without --resume")
            setattr(options, name, value)
        for name in "train", "val":
            setattr(options, name, options.given.get(name, meta[name]))
        self.text = text = load_text(options, on_play=meta["text_name"] == PLAY.name)
        if text.sha256 != meta["sha256"]:
            fail(f"the saved run's text is {meta['text_name']} with SHA-256 {meta['sha256'][:12]}... (and what it "
                 f"validates on); {text.path.name} has {text.sha256[:12]}...: give its own with --train and --val")
        self.weights, self.caches, self.states = part(arrays, "weights"), part(arrays, "caches"), arrays["states"]
        self.best_weights, self.best_loss, self.best_epoch = part(arrays, "best"), meta["best_loss"], meta["best_epoch"]
        self.iteration = self.first_iteration = meta["iteration"]
        self.losses.extend(arrays["losses"].tolist())
        self.history, self.samples, self.seconds_before = arrays["history"].tolist(), meta["samples"], meta["seconds"]
        self.validation_loss = meta["validation_loss"]
        self.dropout_rng.bit_generator.state, self.sample_rng.bit_generator.state = meta["rngs"]
        return {name: saved for name, saved in settings.items() if getattr(options, name) != saved}

    def keep_earlier(self):
        """Move the files of an earlier run into a folder of their own, so that a new one destroys nothing."""
        saved = self.checkpoint.exists()
        if not saved and not (self.csv.exists() and self.csv.read_bytes().count(b"\n") > 3):
            return  # at most the loss before the first update
        folders = (self.path.parent / str(number) for number in itertools.count(1))
        folder = next(folder for folder in folders if not folder.is_file() and not any(folder.glob(f"{self.model}.*")))
        folder.mkdir(exist_ok=True)
        for path in map(self.path.with_suffix, (".png", ".txt", ".csv", ".npz")):  # the last tell that there is a run
            if path.exists():
                path.rename(folder / path.name)
        use = f"{option('out', folder)} resumes it and samples from it" if saved else "it has saved no network yet"
        self.say(f"An earlier run is kept in {folder} ({use})")

    def begin(self):
        """Say what is trained on what, and if there are not enough updates; the clock of training starts."""
        options, text, size = self.options, self.text, sum(array.size for array in self.weights.values())
        self.say(f"{self.model}: {options.depth} x {options.hidden_size} units, {size:,} weights, seed "
                 f"{options.seed}; epochs: {options.epochs}, of {self.per_epoch:,} updates each")
        self.say(f"{text.path.name}: {len(text.train):,} characters, {len(text.validation):,} to validate on, "
                 f"{len(text.vocabulary)} distinct")
        self.say(f"{self.csv} (losses), .png (plot), .txt (samples), .npz (checkpoint)")
        if self.total < ENOUGH:
            self.say(f"A run of {self.total:,} updates is very short, {ENOUGH:,} or more are better: "
                     "give more --epochs, or smaller --batch-size and --seq-size")
        if self.iteration:
            self.say(f"Resuming after iteration {self.iteration:,} of {self.total:,}")
        self.started = time.monotonic() - self.seconds_before

    def request_stop(self, number, frame):
        """Handle the first Ctrl-C or SIGTERM: training stops after the update in hand. The next ends it at once."""
        self.stop = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def goes_on(self):
        """Return whether there are updates left and nobody has asked for the end."""
        return self.iteration < self.total and not self.stop

    def validation_is_due(self):
        """Return whether this is the end of an epoch, or an early moment worth a look."""
        return self.iteration % self.per_epoch == 0 or self.iteration in EARLY and self.iteration < self.per_epoch

    def train_loss(self):
        """Return the mean loss of the last tenth of an epoch, of 10 to 100 updates; NaN before the first update."""
        last = list(self.losses)[-max(10, self.per_epoch // 10):]  # it holds no more than LAST_LOSSES
        return np.mean(last) if last else math.nan

    def note(self, loss, penalty=math.nan):
        """Record an update: its loss, which shows that the state before was sound, and now and then a row."""
        self.iteration += 1
        if not math.isfinite(loss):
            self.give_up(f"the loss is not finite any more at iteration {self.iteration:,}")
        self.losses.append(float(loss))
        self.penalty = penalty
        if loss <= DIVERGED and self.pending is not None:
            self.write(self.checkpoint, self.pending, durable=True)
        self.pending = None
        every = 10 if self.per_epoch < 1000 and self.iteration < 1000 else 100  # a short run is to show its fall too
        if self.iteration % every == 0 and not self.validation_is_due():
            self.add_row()
        if time.monotonic() - self.shown > (0.2 if on_terminal() else 60):
            self.show_progress()

    def note_validation(self, loss, sample):
        """Take note of the validation loss, of the weights if it is the lowest so far, and of what they write."""
        if not math.isfinite(loss):
            self.give_up(f"the loss is not finite any more at iteration {self.iteration:,}")
        self.validation_loss = float(loss)
        self.add_row(self.validation_loss)
        if loss < self.best_loss:
            self.best_weights = {name: array.copy() for name, array in self.weights.items()}
            self.best_loss, self.best_epoch = self.validation_loss, self.iteration / self.per_epoch
        self.samples.append(f"--- iteration {self.iteration:,}, validation loss {loss:.3f}\n{sample}\n")
        self.write(self.txt, "\n".join(self.samples).encode())
        self.show_progress()
        self.say(f"\n{sample}\n")

    def give_up(self, why):
        """End the program, as the network has diverged, with what to do."""
        advice = "nothing was saved; start again with a lower --learning-rate or --depth"
        if self.checkpoint.exists():
            words = ["--resume", "--learning-rate", f"{self.options.learning_rate / 2:g}"]
            for name in sorted({"epochs", "train", "val"} & self.options.given.keys()):  # it may not know of these yet
                words += [f"--{name}", str(self.options.given[name])]
            advice = f"go on from the last checkpoint: {command(self.model, self.options.out, *words)}"
        self.end_progress_line()
        fail(f"{why}; {advice}", status=1)

    # Files

    def add_row(self, validation_loss=math.nan):
        """Add a row to the CSV file and write it: settings as a line of JSON, names of columns, rows."""
        self.history.append([self.iteration, self.iteration / self.per_epoch, self.train_loss(), validation_loss,
                             self.penalty, time.monotonic() - self.started])
        about = {"version": VERSION, "model": self.model, "text": self.text.path.name, "sha256": self.text.sha256}
        lines = [f"# {json.dumps({**about, **self.settings})}", ",".join(COLUMNS)]
        lines += [",".join("" if math.isnan(value) else f"{value:.9g}" for value in row) for row in self.history]
        self.write(self.csv, "".join(f"{line}\n" for line in lines).encode())

    def snapshot(self):
        """Return the content of a checkpoint of this state, or None if the network has diverged."""
        arrays = {"states": self.states}
        for kind, group in ("weights", self.weights), ("caches", self.caches), ("best", self.best_weights):
            arrays.update({f"{kind}/{name}": array for name, array in group.items()})
        if self.losses[-1] > DIVERGED or not all(np.isfinite(array).all() for array in arrays.values()):
            return None
        options, text = self.options, self.text
        meta = {"version": VERSION, "model": self.model, "vocabulary": text.vocabulary, "text_name": text.path.name,
                "sha256": text.sha256, "defaults": options.defaults, "settings": self.settings,
                "train": options.train and os.path.abspath(options.train),
                "val": options.val and os.path.abspath(options.val),
                "iteration": self.iteration, "seconds": time.monotonic() - self.started, "samples": self.samples,
                "validation_loss": self.validation_loss, "best_loss": self.best_loss, "best_epoch": self.best_epoch,
                "rngs": [rng.bit_generator.state for rng in (self.dropout_rng, self.sample_rng)]}
        content = io.BytesIO()
        np.savez(content, meta=json.dumps(meta), losses=np.array(self.losses), history=np.array(self.history), **arrays)
        return content.getvalue()

    def save_when_due(self):
        """Prepare a checkpoint if one is due, and after every epoch: it waits for the next loss to prove its state."""
        if 0 in (self.iteration % self.options.save_every, self.iteration % self.per_epoch):
            self.pending = self.snapshot()

    def write(self, path, content, durable=False):
        """Write a file of the run; return whether that worked. If not, say so and go on."""
        try:
            write_file(path, content, durable)
            return True
        except OSError as error:
            self.warn(f"cannot write {path}: {reason(error)}{'; training goes on' if self.goes_on() else ''}")
            return False

    def save(self):
        """Save the state in which training ends, by itself or by a signal; ends the program if that can't be done."""
        if self.iteration == 0:
            self.say("Stopped before the first update")
            sys.exit(128 + self.stop)
        content = self.snapshot()  # no later loss proves it: it is known to be finite, and so is the loss before it
        if content is None:
            self.give_up("the network has diverged, and its last state is not saved")
        if not self.write(self.checkpoint, content, durable=True):
            fail(f"the last state is not in {self.checkpoint}", status=1)

    def finish(self):
        """Say how to go on, and end the program."""
        if self.iteration < self.total:
            self.say(f"Stopped after iteration {self.iteration:,} of {self.total:,}. Go on with: "
                     f"{command(self.model, self.options.out, '--resume')}")
            sys.exit(128 + self.stop)
        self.say(f"Done. The lowest validation loss, {self.best_loss:.3f}, was that of epoch {self.best_epoch:.4g}. "
                 f"Write with that network: {command(self.model, self.options.out, '--sample')}")

    # Console

    def say(self, text):
        """Print a line, not behind the progress line; where nobody reads any more, ask for the end of training."""
        self.end_progress_line()
        if say(text) == GONE:
            self.stop = self.stop or GONE - 128

    def warn(self, text):
        """Print a line on standard error."""
        self.end_progress_line()
        warn(text)

    def end_progress_line(self):
        """Start a new line if the cursor is on the progress line."""
        if self.progress_width:
            self.progress_width = 0
            say("")

    def show_progress(self):
        """Print the progress line; on a terminal in place of the one before, cut to its width."""
        self.shown = time.monotonic()
        left, speed, updates = "-:--:--", "", self.iteration - self.first_iteration
        if updates >= 20:  # the first tell nothing: they are slow, as a process starts
            rate = updates / (self.shown - self.started - self.seconds_before)
            minutes, seconds = divmod(int((self.total - self.iteration) / rate), 60)
            left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
            speed = f"  {rate * self.options.batch_size * self.options.seq_size:,.0f} char/s"
        train = f"  train {self.train_loss():#.4g}" if self.losses else ""
        line = (f"epoch {self.iteration / self.per_epoch:6.2f}/{self.options.epochs}  {left} left{train}  "
                f"validation {self.validation_loss:.3f}{speed}")
        if on_terminal():
            line = line[:shutil.get_terminal_size().columns - 1]
            say("\r" + line.ljust(self.progress_width), end="")
            self.progress_width = len(line)
        else:
            self.say(line)


def on_terminal():
    """Return whether what is printed is seen on a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()
