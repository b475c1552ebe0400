"""Character-level language model: vanilla RNN with tanh, written out by hand in NumPy.

For layers d = 0 ... D-1 and steps t = 1 ... T, with x[0] the one-hot characters:

    h[d](t)   = tanh(x[d](t) Wxh[d] + h[d](t-1) Whh[d] + bh[d])
    x[d+1](t) = dropout(h[d](t))
    p(t)      = softmax(x[D](t) Why + by)

The recurrent matrices start as Xavier's Gaussians (Glorot, Bengio 2010): variance 1/N keeps the size of a state.
"""

import util  # before NumPy: it sets the threads of NumPy's BLAS

import numpy as np

MODEL = "tanh"

# Settings: the command line changes any of the first block (python relu.py --help).
EPOCHS = 100
HIDDEN_SIZE = 256      # units per layer
DEPTH = 3              # layers
DROPOUT = 0.1          # share of every layer's outputs that is zeroed in training
LEARNING_RATE = 0.01   # of RMSProp; rises during the warm-up, then falls linearly to 0 at the end of the run
BATCH_SIZE = 10        # sequences side by side, each in its own stretch of the text
SEQ_SIZE = 100         # steps of back-propagation through time
SEED = 1

DECAY = 0.9999         # RMSProp: share of the running mean of squared gradients that is kept per update
EPSILON = 1e-8         # RMSProp: keeps the step finite where a gradient has been zero so far
CLIP_NORM = 1.0        # a longer gradient (all arrays as one vector) is scaled back: ReLU's gradients have spikes
WARM_UP = 1000         # updates of rising rate: RMSProp's means start at 0, so that its first steps are too large


def activate(z):
    """Replace z by f(z)."""
    np.tanh(z, out=z)


def slope(h):
    """Derivative of the activation, from its output: tanh'(z) = 1 - h^2."""
    return 1 - h * h


def init_weights(vocabulary_size, hidden_size, depth, rng, dtype=np.float32):
    """Return the dict of weights: Wxh0 (V, H), Whh0 (H, H), bh0 (H,), Wxh1 (H, H), ... and Why (H, V), by (V,)."""
    weights = {}
    for d in range(depth):
        rows = vocabulary_size if d == 0 else hidden_size
        weights[f"Wxh{d}"] = rng.normal(0, np.sqrt(2 / (rows + hidden_size)), (rows, hidden_size))
        weights[f"Whh{d}"] = rng.normal(0, np.sqrt(1 / hidden_size), (hidden_size, hidden_size))
        weights[f"bh{d}"] = np.zeros(hidden_size)
    weights["Why"] = rng.normal(0, np.sqrt(2 / (hidden_size + vocabulary_size)), (hidden_size, vocabulary_size))
    weights["by"] = np.zeros(vocabulary_size)
    return {name: util.aligned(array.astype(dtype)) for name, array in weights.items()}


def dropout_masks(shape, rate, rng, dtype=np.float32):
    """Return masks of that shape: 0 with probability rate, else 1 / (1 - rate), so that every mean stays as it is.

    Each entry takes 16 random bits, a quarter of the time of a float; so rate is rounded to a multiple of 1/65536.
    """
    drop, size = round(rate * 2**16), int(np.prod(shape))
    bits = rng.integers(2**64, size=-(-size // 4), dtype=np.uint64).view(np.uint16)[:size]
    return np.multiply(bits.reshape(shape) >= drop, 2**16 / (2**16 - drop), dtype=dtype)


def forward(weights, inputs, states, masks=None):
    """Run the network over T steps. Rows of a matrix (T*B, ...) are ordered by step, then by sequence.

    inputs (T, B, V) one-hot, states (D, B, H) of the step before, masks (D, T, B, H) or None for no dropout.
    Returns the logits (T*B, V), each layer's input and the top output [(T*B, V or H)] * (D+1), and each layer's
    hidden states [(T+1, B, H)] * D, where h[0] is the state before the first step.
    """
    T, B, _ = inputs.shape
    x = inputs.reshape(T * B, -1)
    xs, hs = [], []
    for d in range(len(states)):
        z = (util.product(x, weights[f"Wxh{d}"]) + weights[f"bh{d}"]).reshape(T, B, -1)  # all steps at once
        h, padded = util.padded_zeros(T + 1, *states[d].shape, z.dtype)
        h[0] = states[d]
        Whh, hWhh = weights[f"Whh{d}"], np.empty_like(padded[0])
        for h_prev, h_t, z_t in zip(padded, h[1:], z):  # only the recurrence has to go step by step
            np.dot(h_prev, Whh, out=hWhh)
            np.add(hWhh[:B], z_t, out=h_t)
            activate(h_t)
        xs.append(x)
        hs.append(h)
        x = (h[1:] if masks is None else h[1:] * masks[d]).reshape(T * B, -1)
    xs.append(x)
    return util.product(x, weights["Why"]) + weights["by"], xs, hs


def log_softmax(logits):
    """Return log p for each row of logits, safe from overflow."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def forward_backward(weights, inputs, targets, states, masks=None):
    """Return the loss (mean cross-entropy in nats per character), its gradients and the states (D, B, H) to carry on.

    targets (T, B) are the indices of the next characters; the other arguments are those of forward(). The backward
    pass is the forward pass upside down, line for line. It stops at the first step (truncated back-propagation).
    """
    T, B, _ = inputs.shape
    logits, xs, hs = forward(weights, inputs, states, masks)
    log_p = log_softmax(logits)
    target = np.arange(T * B), targets.ravel()
    loss = -log_p[target].mean()

    grads = {}
    dlogits = np.exp(log_p)  # d loss / d logits = (p - one-hot target) / (T*B)
    dlogits[target] -= 1
    dlogits /= T * B
    grads["by"] = util.background(np.sum, dlogits, 0)  # while the loops over the steps go on
    grads["Why"] = util.background(np.matmul, xs[-1].T, dlogits)
    dx = dlogits @ weights["Why"].T
    for d in reversed(range(len(states))):
        h = hs[d]
        dh = dx.reshape(T, B, -1) if masks is None else dx.reshape(T, B, -1) * masks[d]
        slopes = slope(h[1:])
        dz, padded = util.padded_zeros(T + 1, *states[d].shape, dh.dtype)  # dz[T] = 0: of no step
        WhhT, dzWhhT = util.aligned(weights[f"Whh{d}"].T), np.empty_like(padded[0])
        for dz_next, dz_t, dh_t, slope_t in zip(padded[:0:-1], dz[-2::-1], dh[::-1], slopes[::-1]):
            np.dot(dz_next, WhhT, out=dzWhhT)
            np.add(dzWhhT[:B], dh_t, out=dz_t)
            dz_t *= slope_t
        dz = dz[:-1].reshape(T * B, -1)
        if d > 0:
            dx = util.product(dz, weights[f"Wxh{d}"].T)
        grads[f"bh{d}"] = util.background(np.sum, dz, 0)
        grads[f"Whh{d}"] = util.background(np.matmul, h[:-1].reshape(T * B, -1).T, dz)
        grads[f"Wxh{d}"] = util.background(np.matmul, xs[d].T, dz)
    grads = {name: grad() for name, grad in reversed(grads.items())}  # the last may not have begun
    return loss, grads, np.stack([h[-1] for h in hs])


def rmsprop(weights, caches, grads, learning_rate):
    """Update weights and caches (running means of squared gradients) in place: RMSProp (Tieleman, Hinton 2012).

    An array's step is divided by the root of its number of rows: all rows of a matrix add up in each of its outputs,
    and RMSProp moves all of them by about the learning rate. Without it a rate of 0.01 does not learn.
    """
    norm = np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads.values()))
    scale = float(min(1, CLIP_NORM / (norm + EPSILON)))
    for name, grad in grads.items():
        grad = grad * scale
        caches[name] += (1 - DECAY) * (grad * grad - caches[name])
        weights[name] -= learning_rate / len(grad) ** 0.5 * grad / (np.sqrt(caches[name]) + EPSILON)


def evaluate_loss(weights, text, streams=10, seq_size=100):
    """Return the mean cross-entropy in nats per character of a whole encoded text (N,), without dropout.

    The text is read as parallel contiguous streams, each from a zero state; every character but the first is
    predicted once.
    """
    V, H = weights["Wxh0"].shape
    depth = len(weights) // 3  # three arrays a layer, and two for the output
    states = np.zeros((depth, streams, H), weights["by"].dtype)
    inputs, targets = util.streams(text, streams)
    nats = 0.0
    for start in range(0, len(inputs), seq_size):
        chunk = slice(start, start + seq_size)
        logits, _, hs = forward(weights, util.one_hot(inputs[chunk], V, states.dtype), states)
        states = np.stack([h[-1] for h in hs])
        rows = np.flatnonzero(targets[chunk].ravel() >= 0)  # the last streams may be shorter: -1 is no target
        nats -= log_softmax(logits)[rows, targets[chunk].ravel()[rows]].sum(dtype=np.float64)
    return nats / (len(text) - 1)


def sample(weights, vocabulary, length, temperature, rng, prime=""):
    """Draw characters one by one from softmax(logits / temperature), and yield each.

    The network first reads the prime, or, where there is none, a newline (or the first character it knows).
    """
    V, H = weights["Wxh0"].shape
    depth = len(weights) // 3
    states = np.zeros((depth, 1, H), weights["by"].dtype)
    unread = util.encode(prime or ("\n" if "\n" in vocabulary else vocabulary[0]), vocabulary)
    for _ in range(length):
        logits, _, hs = forward(weights, util.one_hot(unread[:, None], V, states.dtype), states)
        states = np.stack([h[-1] for h in hs])
        scaled = logits[-1].astype(np.float64)
        scaled = (scaled - scaled.max()) / temperature  # first the difference: near 0 this is greedy and can't overflow
        cumulative = np.exp(scaled).cumsum()
        unread = np.searchsorted(cumulative, rng.random(1) * cumulative[-1], side="right")
        yield vocabulary[unread[0]]


def train(options):
    """Train by truncated back-propagation through time; util keeps the run's losses, plot, checkpoint and signals."""
    run = util.start(MODEL, options)
    text, T, B = run.text, options.seq_size, options.batch_size
    V, shape = len(text.vocabulary), (options.depth, options.batch_size, options.hidden_size)
    if not options.resume:
        seeds = np.random.SeedSequence(options.seed).spawn(3)
        init_rng, run.dropout_rng, run.sample_rng = map(np.random.default_rng, seeds)
        run.weights = init_weights(V, options.hidden_size, options.depth, init_rng)
        run.caches = {name: np.zeros_like(array) for name, array in run.weights.items()}
        run.states = np.zeros(shape, np.float32)
    util.introduce(run)
    if run.iteration == 0:
        util.log(run, validation_loss=evaluate_loss(run.weights, text.validation))

    while run.iteration < run.total and not util.stop_signal:
        if run.iteration % run.per_epoch == 0:
            run.states = np.zeros(shape, np.float32)  # every sequence is back at the start of its stretch
        inputs, targets = util.batch(text.train, run.iteration % run.per_epoch, B, T)
        masks = dropout_masks((options.depth, T, B, options.hidden_size), options.dropout, run.dropout_rng)
        loss, grads, run.states = forward_backward(
            run.weights, util.one_hot(inputs, V), targets, run.states, masks)
        warm_up = min(1, (run.iteration + 1) / WARM_UP)
        rate = options.learning_rate * warm_up * (1 - run.iteration / run.total)
        rmsprop(run.weights, run.caches, grads, rate)
        run.iteration += 1
        if run.iteration % run.per_epoch == 0:
            validation_loss = evaluate_loss(run.weights, text.validation)
            characters = sample(run.weights, text.vocabulary, 200, 0.7, run.sample_rng)
            util.log(run, loss, validation_loss, characters)
        else:
            util.log(run, loss)
    util.finish(run)


if __name__ == "__main__":
    util.main(MODEL, __doc__, dict(
        epochs=EPOCHS, hidden_size=HIDDEN_SIZE, depth=DEPTH, dropout=DROPOUT, learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE, seq_size=SEQ_SIZE, seed=SEED), train, sample)
