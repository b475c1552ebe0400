"""Speed of the four scripts beside PyTorch, JAX and step-by-step NumPy; also memory, start, validation and sampling.

    python tests/benchmark.py    ms per update of all contenders, then memory, start and the rest

An update is all that training does for one batch: cutting it from the text, one-hot vectors, dropout masks, forward and
backward pass, clipping, RMSProp and weight decay. The text is random characters from a fixed seed. relu.py and its
peers start from the same weights, so that their first losses differ by dropout's luck only.

Every contender is a process of its own, which sleeps until its turn, so that no threads disturb those of another. They
take turns, round by round, so that whatever else the machine does hits all alike. PyTorch and JAX may be missing.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace

BLAS = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
for variable in BLAS:
    os.environ.setdefault(variable, "1")  # as the scripts have it; to a worker, take_turns() has given its own number
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import nprnn  # noqa: E402
import relu  # noqa: E402
import stirnn  # noqa: E402
import tanh  # noqa: E402
import util  # noqa: E402

SCRIPTS = {"tanh.py": tanh, "relu.py": relu, "stirnn.py": stirnn, "nprnn.py": nprnn}
WHOLE = "relu.py, whole batch"  # on one thread, not in halves
SIZES = "hidden_size", "batch_size", "seq_size"
DEPTH, DROPOUT = (relu.SETTINGS[name][0] for name in ("depth", "dropout"))
RMSPROP = "decay", "epsilon", "clip_norm", "weight_decay"
DECAY, EPSILON, CLIP_NORM, WEIGHT_DECAY = (relu.SETTINGS[name][0] for name in RMSPROP)
V = 65                    # the original's characters
LEARNING_RATE = 1e-5      # the work is the same at any rate, and at this one nothing can diverge
UPDATES = 50              # of a contender in one turn; the first after a rest are slow, and training does not rest
LIMIT_SIZE = 2048         # rows of the square product that stands for the machine's limit
VALIDATION_SIZE = 90_707  # characters of the original's validation text
REST = 0.1                # seconds after a turn: some pools of threads spin on for a while before they sleep


def operations(task):
    """Return the floating-point operations of an update's matrix products; all else is 1% at 128 units, then less."""
    H = task.hidden_size
    multiplications = (
        2 * V * H                  # input of layer 0: x Wxh, gradient of Wxh (nobody needs that of the one-hot x)
        + (DEPTH - 1) * 3 * H * H  # inputs of the other layers: x Wxh, gradient of Wxh, gradient of x
        + DEPTH * 3 * H * H        # recurrence: h Whh, gradient of Whh, gradient of h
        + 3 * H * V)               # output: x Why, gradient of Why, gradient of x
    return 2 * task.batch_size * task.seq_size * multiplications  # an addition comes with each multiplication


# Contenders: each returns a function that does one update and returns its loss ---------------------------------------

def start(task, model=relu, dtype=np.float32):
    """Return initial weights, caches and states."""
    weights = model.init_weights(V, task.hidden_size, DEPTH, np.random.default_rng(1), dtype)
    caches = {name: np.zeros_like(array) for name, array in weights.items()}
    return weights, caches, np.zeros((DEPTH, task.batch_size, task.hidden_size), dtype)


def random_text(size):
    return np.random.default_rng(2).integers(0, V, size, dtype=np.uint8)


def batches(task):
    """Yield inputs and targets (T, B) of a random text, epoch after epoch."""
    text = random_text(10**6)
    for number in itertools.cycle(range((len(text) - 1) // task.batch_size // task.seq_size)):
        yield util.batch(text, number, task.batch_size, task.seq_size)


def script(task):
    """One of the four scripts: the body of its training loop after the warm-up."""
    util.CORES = task.threads
    model, source, rng = SCRIPTS.get(task.kind, relu), batches(task), np.random.default_rng(3)
    weights, caches, states = start(task, model)
    more = []
    if model is stirnn:
        more = [model.SETTINGS["beta"][0]]
    rmsprop = functools.partial(model.rmsprop, **{name: model.SETTINGS[name][0] for name in RMSPROP})
    forward_backward = model.forward_backward
    if task.kind != WHOLE:
        forward_backward = functools.partial(util.in_halves, forward_backward)

    def update():
        nonlocal states
        inputs, targets = next(source)
        masks = model.dropout_masks((DEPTH, *inputs.shape, task.hidden_size), DROPOUT, rng)
        loss, *_, grads, states = forward_backward(weights, util.one_hot(inputs, V), targets, states, masks, *more)
        rmsprop(weights, caches, grads, LEARNING_RATE)
        return loss
    return update


def step_by_step(task):
    """In the manner of the original: float64, and products of their own for each step, layer and gradient."""
    weights, caches, states = start(task, dtype=np.float64)
    source, rng, rows = batches(task), np.random.default_rng(3), np.arange(task.batch_size)

    def update():
        inputs, targets = next(source)
        hs, steps, loss = [states.copy()], [], 0
        for x, target in zip(util.one_hot(inputs, V, float), targets):
            masks, xs, h = (rng.random(states.shape) >= DROPOUT) / (1 - DROPOUT), [x], np.empty_like(states)
            for d in range(DEPTH):
                h[d] = np.maximum(xs[d] @ weights[f"Wxh{d}"] + hs[-1][d] @ weights[f"Whh{d}"] + weights[f"bh{d}"], 0)
                xs.append(h[d] * masks[d])
            log_p = relu.log_softmax(xs[-1] @ weights["Why"] + weights["by"])
            loss -= log_p[rows, target].sum() / targets.size
            hs.append(h)
            steps.append((xs, masks, log_p, target))
        grads = {name: np.zeros_like(array) for name, array in weights.items()}
        dz = np.zeros_like(states)
        for t in reversed(range(len(steps))):
            xs, masks, log_p, target = steps[t]
            dlogits = np.exp(log_p) / targets.size
            dlogits[rows, target] -= 1 / targets.size
            grads["by"] += dlogits.sum(axis=0)
            grads["Why"] += xs[-1].T @ dlogits
            dx = dlogits @ weights["Why"].T
            for d in reversed(range(DEPTH)):
                dz[d] = (dx * masks[d] + dz[d] @ weights[f"Whh{d}"].T) * (hs[t + 1][d] > 0)  # on the right: of step t+1
                grads[f"bh{d}"] += dz[d].sum(axis=0)
                grads[f"Whh{d}"] += hs[t][d].T @ dz[d]
                grads[f"Wxh{d}"] += xs[d].T @ dz[d]
                dx = dz[d] @ weights[f"Wxh{d}"].T if d > 0 else None
        states[:] = hs[-1]
        relu.rmsprop(weights, caches, grads, LEARNING_RATE, DECAY, EPSILON, CLIP_NORM, WEIGHT_DECAY)
        return loss
    return update


def pytorch(task):
    """Eager mode, as PyTorch's documentation has it. Its weight decay joins the gradient, which is as much work."""
    import torch
    torch.set_num_threads(task.threads)
    rnn = torch.nn.RNN(V, task.hidden_size, DEPTH, nonlinearity="relu", dropout=DROPOUT)  # dropout between layers ...
    dropout, head = torch.nn.Dropout(DROPOUT), torch.nn.Linear(task.hidden_size, V)       # ... and on top
    weights, _, states = start(task)
    weights = {name: torch.from_numpy(array.T.copy()) for name, array in weights.items()}
    head.load_state_dict({"weight": weights["Why"], "bias": weights["by"]})
    rnn.load_state_dict({f"{theirs}_l{d}": weights[f"{ours}{d}"] for d in range(DEPTH) for theirs, ours in (
        ("weight_ih", "Wxh"), ("weight_hh", "Whh"), ("bias_ih", "bh"), ("bias_hh", "bh"))})  # two biases, both 0
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.RMSprop(parameters, LEARNING_RATE, alpha=DECAY, eps=EPSILON, weight_decay=WEIGHT_DECAY)
    states, source = torch.from_numpy(states), batches(task)

    def update():
        nonlocal states
        inputs, targets = (torch.from_numpy(indices.astype(np.int64)) for indices in next(source))
        h, states = rnn(torch.nn.functional.one_hot(inputs, V).float(), states.detach())
        loss = torch.nn.functional.cross_entropy(head(dropout(h)).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return loss.detach()
    return update


def jax_jit(task):
    """The whole update compiled: a scan per layer, its input products before it, and 16 random bits per mask entry."""
    import jax
    import jax.numpy as jnp

    def loss_and_states(weights, inputs, targets, states, key):
        x, last = jax.nn.one_hot(inputs, V), []
        bits = jax.random.bits(key, (DEPTH, *inputs.shape, task.hidden_size), jnp.uint16)
        masks = jnp.where(bits >= round(DROPOUT * 2**16), jnp.float32(1 / (1 - DROPOUT)), 0)
        for d in range(DEPTH):
            def step(h, z, Whh=weights[f"Whh{d}"]):
                return (jax.nn.relu(z + h @ Whh),) * 2  # the state, and the output of the step
            h, hs = jax.lax.scan(step, states[d], x @ weights[f"Wxh{d}"] + weights[f"bh{d}"])
            last.append(h)
            x = hs * masks[d]
        log_p = jax.nn.log_softmax(x @ weights["Why"] + weights["by"])
        return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean(), jnp.stack(last)
    def whole_update(weights, caches, states, key, inputs, targets):
        key, mask_key = jax.random.split(key)
        differentiate = jax.value_and_grad(loss_and_states, has_aux=True)
        (loss, states), grads = differentiate(weights, inputs, targets, states, mask_key)
        norm = jnp.sqrt(sum(jnp.vdot(grad, grad) for grad in grads.values()))
        grads = jax.tree.map(lambda grad: grad * jnp.minimum(1, CLIP_NORM / (norm + EPSILON)), grads)
        caches = jax.tree.map(lambda cache, grad: cache + (1 - DECAY) * (grad * grad - cache), caches, grads)
        weights = jax.tree.map(lambda weight, cache, grad: weight - LEARNING_RATE * (
            grad / (jnp.sqrt(cache) + EPSILON) / len(grad) ** 0.5 + WEIGHT_DECAY * weight), weights, caches, grads)
        return weights, caches, states, key, loss

    carried = jax.tree.map(jnp.array, [*start(task), jax.random.key(3)])
    compiled, source = jax.jit(whole_update, donate_argnums=(0, 1, 2)), batches(task)  # new weights replace the old

    def update():
        *carried[:], loss = compiled(*carried, *next(source))
        return loss
    return update


# What takes turns besides updates: the machine's limit, validation, sampling, and updates on a text from a file -------

def limit(task):
    a, b, product = np.random.default_rng(4).random((3, LIMIT_SIZE, LIMIT_SIZE), dtype=np.float32)
    return lambda: np.matmul(a, b, out=product)[0, 0]


def validation(task):
    weights, text = start(task)[0], random_text(VALIDATION_SIZE)
    return lambda: relu.evaluate_loss(weights, text)


def sampling(task):
    vocabulary = "".join(map(chr, range(32, 32 + V)))
    characters = relu.sample(start(task)[0], vocabulary, sys.maxsize, 0.7, np.random.default_rng(5))
    return lambda: len(next(characters))


PEERS = {"PyTorch": pytorch, "JAX": jax_jit, "step-by-step": step_by_step}
KINDS = {**dict.fromkeys([*SCRIPTS, WHOLE], script), **PEERS,
         "limit": limit, "validation": validation, "sampling": sampling}


# Workers and their turns --------------------------------------------------------------------------------------------

def begin(task):
    """In a worker: make ready for the task, and return it with its first loss and what it took note of."""
    global update
    np.seterr(all="ignore")  # as util.main has it
    update = KINDS[task.kind](task)
    task.loss = float(update())  # the first update compiles and warms up
    return task


def turn(updates):
    """In a worker: do updates; return ms per update, and how many cores were kept busy."""
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(updates):
        loss = update()
    loss = float(loss)  # JAX has returned before its work was done: this waits for it
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    assert math.isfinite(loss), "the loss is not finite"
    time.sleep(REST)
    return clock / updates * 1e3, cpu / clock


def take_turns(tasks, rounds):
    """Let each task, in a process of its own, do its updates in turn; return the tasks with what was measured.

    That is the first loss; in ms per update the times of all rounds, and their median; the median of the busy cores.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for task in tasks:
            threads = task.threads if task.kind in PEERS or task.kind == "limit" else 1  # the scripts have their own
            os.environ.update(dict.fromkeys([*BLAS, "NPROC"], str(threads)))  # NPROC is JAX's
            worker = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), signal.signal,
                                                             (signal.SIGINT, signal.SIG_DFL)))  # Ctrl-C: no traceback
            workers.append((worker, worker.submit(begin, task).result(), []))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for worker, task, answers in workers:
                answers.append(worker.submit(turn, task.updates).result())
    for _, task, answers in workers:
        task.times, cores = zip(*answers)
        task.ms, task.cores = median(task.times), median(cores)
    return [task for _, task, _ in workers]


# What is measured ---------------------------------------------------------------------------------------------------

def new_task(options, kind, threads, updates):
    sizes = {name: getattr(options, name) for name in SIZES}
    return SimpleNamespace(kind=kind, threads=threads, updates=updates, **sizes)


def compare(options, contenders, peers):
    """Measure and print the updates of contenders (kind, threads) beside the machine's limit and peers."""
    updates = max(1, UPDATES * 256**2 // max(options.hidden_size, 256)**2)
    tasks = [new_task(options, kind, threads, updates) for kind, threads in contenders]
    *tasks, one, two = take_turns([*tasks, *(new_task(options, "limit", threads, 2) for threads in (1, 2))],
                                  options.rounds)
    limits = {task.threads: 2 * LIMIT_SIZE**3 / task.ms / 1e6 for task in (one, two)}  # GFLOP/s
    best = {peer: min(task.ms for task in tasks if task.kind == peer) for peer in peers}
    rows = [["contender", "threads", "loss", "median", "min", "max", "char/s", "GFLOP", "GFLOP/s", "limit",
             "cores", *(f"vs {peer}" for peer in peers)]]
    for task in tasks:
        gflop, per_second = operations(task) / 1e9, 1e3 / task.ms
        times = [f"{ms:.1f}" for ms in (task.ms, min(task.times), max(task.times))]
        rows.append([task.kind, str(task.threads), f"{task.loss:.3f}", *times,
                     f"{task.batch_size * task.seq_size * per_second:,.0f}", f"{gflop:.2f}",
                     f"{gflop * per_second:.1f}", f"{gflop * per_second / limits[task.threads]:.0%}",
                     f"{task.cores:.2f}", *(f"{best[peer] / task.ms:.2f}x" for peer in peers)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(row[0].ljust(widths[0]), *(word.rjust(width) for word, width in zip(row[1:], widths[1:])), sep="  ")
    print("loss: of the first update. median, min, max: ms per update. limit: share of the machine's, "
          f"{limits[1]:.0f} GFLOP/s on 1 thread, {limits[2]:.0f} on 2 (float32 product of {LIMIT_SIZE} rows). "
          "cores: those kept busy. vs: times as fast as that peer at its better number of threads.\n", flush=True)


def real_run(options, folder):
    """Train relu.py for an epoch; return the seconds from start to first update, and the peak memory in MB."""
    sizes = [f"{util.option(name)}={getattr(options, name)}" for name in SIZES]
    words = "relu.py", "--train=data/play.txt", "--epochs=1", "--no-window", f"--out={folder}", *sizes
    environment = {name: value for name, value in os.environ.items() if name not in BLAS}  # as a user starts it
    started, first = time.perf_counter(), None
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("epoch") and first is None:  # the first line of progress comes before the first update
            first = time.perf_counter() - started
    _, process.returncode, usage = os.wait4(process.pid, 0)  # the memory of this child alone
    if process.returncode:
        sys.exit("benchmark.py: relu.py broke off")
    return first, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes there, kilobytes elsewhere


def memory_and_start(options):
    """Measure and print relu.py's memory, start, validation and sampling."""
    with tempfile.TemporaryDirectory() as folder:
        firsts, memories = zip(*(real_run(options, f"{folder}/run{number}") for number in range(3)))
        print(f"relu.py, 1 epoch of data/play.txt: peak memory {max(memories):.0f} MB; {median(firsts):.2f} s from "
              "start to first update, a validation and a sample among them (median of 3 runs)")
    tasks = [new_task(options, "validation", 1, 1), new_task(options, "sampling", 1, 500)]
    validated, sampled = take_turns(tasks, options.rounds)
    print(f"Validation: {validated.ms / 1e3:.2f} s for {VALIDATION_SIZE:,} characters, "
          f"{VALIDATION_SIZE / validated.ms * 1e3:,.0f} char/s\nSampling: {1e3 / sampled.ms:,.0f} char/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in SIZES:
        value, _, _, what = relu.SETTINGS[name]
        parser.add_argument(util.option(name), type=int, metavar="N", default=value, help=f"{what} (default {value})")
    parser.add_argument("--rounds", type=int, metavar="N", default=15, help="turns of each contender (default 15)")
    options = parser.parse_args()
    missing = [peer for peer, module in (("PyTorch", "torch"), ("JAX", "jax")) if not importlib.util.find_spec(module)]
    peers = [peer for peer in PEERS if peer not in missing]
    print(f"{platform.machine()}, {util.CORES} cores, Python {platform.python_version()}, NumPy {np.__version__}; "
          f"batch {options.batch_size} x {options.seq_size} steps, {options.rounds} rounds"
          + "".join(f"\n{peer} is not installed: left out" for peer in missing), end="\n\n", flush=True)
    contenders = [(kind, threads) for kind in (*SCRIPTS, *peers) for threads in (1, 2)]
    compare(options, [*contenders, (WHOLE, 1)], peers)
    if os.name == "posix":  # elsewhere Python can't tell the memory of a process
        memory_and_start(options)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
