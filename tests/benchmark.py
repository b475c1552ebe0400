"""Speed of the four scripts beside PyTorch, JAX and step-by-step NumPy; also memory, start, validation and sampling.

    python tests/benchmark.py             ms per update of all contenders, then memory, start and the rest
    python tests/benchmark.py --growth    also how relu.py's update grows with the hidden size

An update is all that training does for one batch: cutting it from the text, one-hot vectors, dropout masks, forward and
backward pass, clipping and RMSProp. The text is random characters from a fixed seed. relu.py and its peers start from
the same weights, so that their first losses differ by dropout's luck only.

Every contender is a process of its own, which sleeps until its turn, so that no threads disturb those of another. They
take turns, round by round, so that whatever else the machine does hits all alike. PyTorch and JAX may be missing.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import util  # before NumPy: it sets the threads of NumPy's BLAS

import numpy as np

import nprnn
import relu
import stirnn
import tanh

SCRIPTS = {"tanh.py": tanh, "relu.py": relu, "stirnn.py": stirnn, "nprnn.py": nprnn}
V, DEPTH, DROPOUT = 65, 3, 0.1  # the original's characters, layers and dropout
LEARNING_RATE = 1e-5            # the work is the same at any rate, and at this one nothing can diverge
UPDATES = 50                    # of a contender in one turn; the first after a rest are slow, and training does not rest
LIMIT_SIZE = 2048               # rows of the square product that stands for the machine's limit
VALIDATION_SIZE = 90_707        # characters of the original's validation text
REST = 0.1                      # seconds after a turn: some pools of threads spin on for a while before they sleep


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

def start_weights(task, model=relu):
    return model.init_weights(V, task.hidden_size, DEPTH, np.random.default_rng(1))


def random_text(size):
    return np.random.default_rng(2).integers(0, V, size, dtype=np.uint8)


def batches(task, text=None):
    """Yield inputs and targets (T, B) of an encoded text (N,), or else a random one, epoch after epoch."""
    text = random_text(10**6) if text is None else text
    for number in itertools.cycle(range((len(text) - 1) // task.batch_size // task.seq_size)):
        yield util.batch(text, number, task.batch_size, task.seq_size)


def script(task, text=None):
    """One of the four scripts: the body of its training loop, made of its own functions."""
    util.threads = task.threads
    model, source, rng = SCRIPTS.get(task.kind, relu), batches(task, text), np.random.default_rng(3)
    weights = start_weights(task, model)
    caches = {name: np.zeros_like(array) for name, array in weights.items()}
    states = np.zeros((DEPTH, task.batch_size, task.hidden_size), np.float32)

    def update():
        nonlocal states
        inputs, targets = next(source)
        masks = model.dropout_masks((DEPTH, *inputs.shape, task.hidden_size), DROPOUT, rng)
        states = stirnn.hold(states) if model is stirnn else states
        loss, *_, grads, states = model.forward_backward(weights, util.one_hot(inputs, V), targets, states, masks)
        model.rmsprop(weights, caches, grads, LEARNING_RATE)
        return loss
    return update


def step_by_step(task):
    """In the manner of the original: float64, and products of their own for each step, layer and gradient."""
    weights = {name: array.astype(float) for name, array in start_weights(task).items()}
    caches = {name: np.zeros_like(array) for name, array in weights.items()}
    states, source = np.zeros((DEPTH, task.batch_size, task.hidden_size)), batches(task)
    rng, rows = np.random.default_rng(3), np.arange(task.batch_size)

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
        for h, h_prev, (xs, masks, log_p, target) in zip(hs[:0:-1], hs[-2::-1], steps[::-1]):
            dlogits = np.exp(log_p) / targets.size
            dlogits[rows, target] -= 1 / targets.size
            grads["by"] += dlogits.sum(axis=0)
            grads["Why"] += xs[-1].T @ dlogits
            dx = dlogits @ weights["Why"].T
            for d in reversed(range(DEPTH)):
                dz[d] = (dx * masks[d] + dz[d] @ weights[f"Whh{d}"].T) * (h[d] > 0)  # dz on the right: of step t+1
                grads[f"bh{d}"] += dz[d].sum(axis=0)
                grads[f"Whh{d}"] += h_prev[d].T @ dz[d]
                grads[f"Wxh{d}"] += xs[d].T @ dz[d]
                dx = dz[d] @ weights[f"Wxh{d}"].T if d > 0 else None
        states[:] = hs[-1]
        relu.rmsprop(weights, caches, grads, LEARNING_RATE)
        return loss
    return update


def pytorch(task):
    """Eager mode, as PyTorch's documentation has it."""
    import torch
    torch.set_num_threads(task.threads)
    rnn = torch.nn.RNN(V, task.hidden_size, DEPTH, nonlinearity="relu", dropout=DROPOUT)  # dropout between layers ...
    dropout, head = torch.nn.Dropout(DROPOUT), torch.nn.Linear(task.hidden_size, V)       # ... and on top
    weights = {name: torch.from_numpy(array.T.copy()) for name, array in start_weights(task).items()}
    head.load_state_dict({"weight": weights["Why"], "bias": weights["by"]})
    rnn.load_state_dict({f"{theirs}_l{d}": weights[f"{ours}{d}"] for d in range(DEPTH) for theirs, ours in (
        ("weight_ih", "Wxh"), ("weight_hh", "Whh"), ("bias_ih", "bh"), ("bias_hh", "bh"))})  # two biases, both 0
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.RMSprop(parameters, LEARNING_RATE, alpha=relu.DECAY, eps=relu.EPSILON)
    states, source = torch.zeros(DEPTH, task.batch_size, task.hidden_size), batches(task)

    def update():
        nonlocal states
        inputs, targets = (torch.from_numpy(indices.astype(np.int64)) for indices in next(source))
        h, states = rnn(torch.nn.functional.one_hot(inputs, V).float(), states.detach())
        loss = torch.nn.functional.cross_entropy(head(dropout(h)).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, relu.CLIP_NORM)
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
        grads = jax.tree.map(lambda grad: grad * jnp.minimum(1, relu.CLIP_NORM / (norm + relu.EPSILON)), grads)
        caches = jax.tree.map(lambda cache, grad: cache + (1 - relu.DECAY) * (grad * grad - cache), caches, grads)
        weights = jax.tree.map(lambda weight, cache, grad: weight - LEARNING_RATE / len(grad)**0.5 * grad
                               / (jnp.sqrt(cache) + relu.EPSILON), weights, caches, grads)
        return weights, caches, states, key, loss

    weights, states = start_weights(task), np.zeros((DEPTH, task.batch_size, task.hidden_size), np.float32)
    carried = jax.tree.map(jnp.array, [weights, jax.tree.map(np.zeros_like, weights), states, jax.random.key(3)])
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
    weights, text = start_weights(task), random_text(VALIDATION_SIZE)
    return lambda: relu.evaluate_loss(weights, text)


def sampling(task):
    vocabulary = "".join(map(chr, range(32, 32 + V)))
    characters = relu.sample(start_weights(task), vocabulary, sys.maxsize, 0.7, np.random.default_rng(5))
    return lambda: len(next(characters))


def from_file(task):
    """Updates of relu.py on a text file; the task takes note of the seconds and the memory that it takes to load."""
    import resource
    started = time.perf_counter()
    text = util.load_text(SimpleNamespace(**vars(task), train=task.path, val=None))
    task.seconds, task.memory = time.perf_counter() - started, megabytes(resource.getrusage(resource.RUSAGE_SELF))
    return script(task, text.train)


def megabytes(usage):
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes there, kilobytes elsewhere


PEERS = {"PyTorch": pytorch, "JAX": jax_jit, "step-by-step": step_by_step}
KINDS = {**dict.fromkeys(SCRIPTS, script), **PEERS,
         "limit": limit, "validation": validation, "sampling": sampling, "from_file": from_file}


# Workers and their turns --------------------------------------------------------------------------------------------

def work(task):
    """Be a worker: say when ready; then, for each line with a number of updates, do them and answer in JSON."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no traceback from each
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library may print must not come between the answers
    update = KINDS[task.kind](task)
    print(json.dumps({"loss": float(update()), **vars(task)}), file=answers)  # the first update compiles and warms up
    rested = time.process_time(), time.perf_counter()
    for line in sys.stdin:
        cpu, clock = time.process_time(), time.perf_counter()
        idle = (cpu - rested[0]) / (clock - rested[1])
        for _ in range(int(line)):
            loss = update()
        loss = float(loss)  # JAX has returned before its work was done: this waits for it
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        time.sleep(REST)
        rested = time.process_time(), time.perf_counter()
        result = {"ms": clock / int(line) * 1e3, "cores": cpu / clock, "idle": idle, "loss": loss}
        print(json.dumps(result), file=answers)


def start(stack, options, kind, threads, updates=UPDATES, **more):
    """Start a worker, which ends with the stack; return it, ready for its turns of that many updates."""
    sizes = {name: vars(options)[name] for name in ("hidden_size", "batch_size", "seq_size")}
    task, environment = {"kind": kind, "threads": threads, **sizes, **more}, dict(os.environ)
    if kind in PEERS or kind == "limit":  # the scripts' threads are as util sets them; NPROC is the variable of JAX
        names = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NPROC"
        environment.update(dict.fromkeys(names, str(threads)))
    process = stack.enter_context(subprocess.Popen([sys.executable, __file__, "--worker", json.dumps(task)], text=True,
                                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
    worker = SimpleNamespace(kind=kind, process=process, updates=updates, answers=[])
    vars(worker).update(answer(worker))
    return worker


def answer(worker):
    result = json.loads(worker.process.stdout.readline() or sys.exit(f"benchmark.py: {worker.kind} broke off"))
    return result if math.isfinite(result["loss"]) else sys.exit(f"benchmark.py: {worker.kind}: the loss is not finite")


def take_turns(workers, rounds):
    """Let each worker in turn do its updates, for a number of rounds; leave their times in ms, and the medians."""
    for worker in rounds * workers:
        print(worker.updates, file=worker.process.stdin, flush=True)
        worker.answers.append(answer(worker))
    for worker in workers:
        worker.times = [result["ms"] for result in worker.answers]
        worker.ms, worker.cores = (median(result[name] for result in worker.answers) for name in ("ms", "cores"))
        idle = max(result["idle"] for result in worker.answers)
        if idle > 0.01:
            print(f"Beware: {worker.kind} kept {idle:.0%} of a core busy between its turns")


# What is measured ---------------------------------------------------------------------------------------------------

def compare(options, kinds, hidden_sizes, peers):
    """Measure and print the updates of contenders with 1 and 2 threads, against the machine's limit and the peers."""
    with contextlib.ExitStack() as stack:
        limits = [start(stack, options, "limit", threads, updates=2) for threads in (1, 2)]
        workers = [start(stack, options, kind, threads, max(1, UPDATES * 256**2 // max(size, 256)**2), hidden_size=size)
                   for kind in kinds for size in hidden_sizes for threads in (1, 2)]
        take_turns([*workers, *limits], options.rounds)
    limits = {worker.threads: 2 * LIMIT_SIZE**3 / worker.ms / 1e6 for worker in limits}  # GFLOP/s
    best = {peer: min(worker.ms for worker in workers if worker.kind == peer) for peer in peers}
    header = "contender hidden threads median min max char/s GFLOP GFLOP/s limit cores".split()
    rows = [header + [f"vs {peer}" for peer in peers]]
    for worker in workers:
        work, characters = operations(worker) / 1e9, options.batch_size * options.seq_size
        rate = work / worker.ms * 1e3
        times = [f"{ms:.1f}" for ms in (worker.ms, min(worker.times), max(worker.times))]
        rows.append([worker.kind, str(worker.hidden_size), str(worker.threads), *times,
                     f"{characters / worker.ms * 1e3:,.0f}", f"{work:.2f}", f"{rate:.1f}",
                     f"{rate / limits[worker.threads]:.0%}", f"{worker.cores:.2f}",
                     *(f"{best[peer] / worker.ms:.2f}x" for peer in peers)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(row[0].ljust(widths[0]), *(word.rjust(width) for word, width in zip(row[1:], widths[1:])), sep="  ")
    print(f"median, min, max: ms per update. limit: share of {limits[1]:.0f} GFLOP/s on 1 thread, {limits[2]:.0f} on 2 "
          f"(float32 product of {LIMIT_SIZE} x {LIMIT_SIZE}). cores: those kept busy.")
    if peers:
        firsts = [f"{worker.kind} {worker.loss:.3f}" for worker in workers
                  if worker.threads == 1 and worker.kind in ("relu.py", *peers)]
        print(f"vs: times as fast as that peer at its better number of threads. First losses: {', '.join(firsts)}.")
    print(flush=True)


def real_run(options, folder):
    """Train relu.py for an epoch; return the seconds from start to first update, and the peak memory in MB."""
    words = [f"--{name}={vars(options)[name.replace('-', '_')]}" for name in ("hidden-size", "batch-size", "seq-size")]
    words = [sys.executable, "relu.py", "--train=data/play.txt", "--epochs=1", "--no-plot", f"--out={folder}", *words]
    started, first = time.perf_counter(), math.nan
    process = subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("epoch") and math.isnan(first):  # its first line of progress comes with the first update
            first = time.perf_counter() - started
    _, process.returncode, usage = os.wait4(process.pid, 0)  # the memory of this child alone
    return first, megabytes(usage)


def memory_and_start(options):
    """Measure and print relu.py's memory, start, validation, sampling, and what the size of the text does to it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        firsts, memories = zip(*(real_run(options, f"{folder}/run{number}") for number in range(3)))
        print(f"relu.py, 1 epoch of data/play.txt: peak memory {max(memories):.0f} MB; "
              f"{median(firsts):.2f} s from start to first update (median of 3 runs)")
        workers = [start(stack, options, kind, util.threads, times)
                   for kind, times in (("validation", 1), ("sampling", 500))]
        characters, rng = np.array([10, *range(32, 31 + V)], np.uint8), np.random.default_rng(6)
        for size in (1, options.text_size) if options.text_size else ():
            with open(f"{folder}/{size}", "wb") as file:
                for _ in range(size):  # by the megabyte: a large parent's memory would count in its children's peak
                    file.write(characters[rng.integers(0, V, 10**6)])
            workers.append(start(stack, options, "from_file", util.threads, path=file.name, size=size))
        take_turns(workers, options.rounds)
    print(f"Validation: {workers[0].ms / 1e3:.2f} s for {VALIDATION_SIZE:,} characters, "
          f"{VALIDATION_SIZE / workers[0].ms * 1e3:,.0f} char/s\nSampling: {1e3 / workers[1].ms:,.0f} char/s")
    for worker in workers[2:]:
        print(f"Text of {worker.size} MB: loaded in {worker.seconds:.2f} s, peak memory {worker.memory:.0f} MB, "
              f"{worker.ms:.1f} ms per update")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, metavar="N", default=256, help="units per layer (default 256)")
    parser.add_argument("--batch-size", type=int, metavar="N", default=10, help="sequences side by side (default 10)")
    parser.add_argument("--seq-size", type=int, metavar="N", default=100, help="steps per update (default 100)")
    parser.add_argument("--rounds", type=int, metavar="N", default=15, help="turns of each contender (default 15)")
    parser.add_argument("--growth", action="store_true", help="also relu.py with 128, 256, 512 and 1024 units")
    parser.add_argument("--text-size", type=int, default=100, metavar="MB",
                        help="text to load beside one of 1 MB (default 100; 0: neither)")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        with np.errstate(all="ignore"):  # as util.main does
            return work(SimpleNamespace(**options.worker))
    missing = [peer for peer, module in (("PyTorch", "torch"), ("JAX", "jax")) if not importlib.util.find_spec(module)]
    peers = [peer for peer in PEERS if peer not in missing]
    print(f"{platform.machine()}, {util.CORES} cores, Python {platform.python_version()}, NumPy {np.__version__}; "
          f"batch {options.batch_size} x {options.seq_size} steps, {options.rounds} rounds"
          + "".join(f"\n{peer} is not installed: left out" for peer in missing), end="\n\n", flush=True)
    compare(options, [*SCRIPTS, *peers], [options.hidden_size], peers)
    if options.growth:
        compare(options, ["relu.py"], [128, 256, 512, 1024], [])
    if os.name == "posix":  # elsewhere Python can't tell the memory of a process
        memory_and_start(options)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
