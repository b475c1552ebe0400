"""IRNN with the norm stabiliser: a character-level language model in plain NumPy.

    python stirnn.py             train, with a plot of the losses and samples
    python stirnn.py --sample    sample from the trained network (--help: more)

Layers d = 0 ... D-1, steps t = 1 ... T, x[0] the characters as one-hot rows. Left: forward; right, upward: backward.

    z[d](t)   = x[d](t) Wxh[d] + bh[d]                   dx[d](t)   = dz[d](t) Wxh[d]'
    h[d](t)   = relu(z[d](t) + h[d](t-1) Whh[d])         dz[d](t)   = (dh[d](t) + dz[d](t+1) Whh[d]') slope(h[d](t))
    x[d+1](t) = h[d](t) mask[d](t)         (dropout)     dh[d](t)   = dx[d+1](t) mask[d](t)
    logits(t) = x[D](t) Why + by                         dx[D](t)   = dlogits(t) Why'
    loss      = mean of -log softmax(logits)[target]     dlogits(t) = (softmax(logits(t)) - one-hot target(t)) / (T B)

h(0) is left by the batch before, or 0; dz(T+1) is 0; dh is the gradient from the layer above alone. ' transposes; mask
and slope multiply elementwise. The loss is the mean over T steps of B sequences, gradients of weights are sums over
both: dWxh of x(t)' dz(t), dWhh of h(t-1)' dz(t), dbh of dz(t), dWhy of x[D](t)' dlogits(t), dby of dlogits(t).

Matrices start as Gaussians of variance 2 / (rows + columns) (Glorot, Bengio 2010), so that what comes out is about as
large as what goes in. The first alone has variance 1, as only one entry of a one-hot input is not 0. The recurrent
ones are 0.3 times the identity (Le, Jaitly, Hinton 2015, arXiv 1504.00941): the whole identity hands each state on
unchanged, so that states sum up all inputs, and most runs explode; times 0.3, a step keeps three tenths. The norm
stabiliser (Krueger, Memisevic 2016, arXiv 1511.08400) keeps the norms of states steady: its penalty is added to the
loss, its gradient to that from above, dh[d](t), with growth[d](T+1) = 0:

    growth[d](t)     = ||h[d](t)|| - ||h[d](t-1)||
    penalty          = beta * sum over d of mean of growth[d](t)^2
    dh_penalty[d](t) = 2 beta / (T B) (growth[d](t) - growth[d](t+1)) h[d](t) / ||h[d](t)||
"""

try:
    import numpy as np
except ImportError:
    raise SystemExit("No NumPy. Type . .venv/bin/activate (Windows: .venv\\Scripts\\activate), see README.md") from None

import util
from graph import Grapher

MODEL = "stirnn"
SETTINGS = {  # each is an option too (--hidden-size 128): its value, the least and the most it may be, and what it is
    "epochs": (100, 1, 10**6, "passes over the training text"),
    "hidden_size": (256, 1, 10**5, "units per layer"),
    "depth": (3, 1, 1000, "layers"),
    "dropout": (0.1, 0, 0.99, "probability that an output of a layer is zeroed in training"),
    "learning_rate": (0.01, 0, np.inf, "learning rate of RMSProp, times a rise (the warm-up) and a linear fall to 0"),
    "batch_size": (10, 1, 10**6, "sequences side by side, each in its own stretch of the text"),
    "seq_size": (100, 1, 10**6, "length of a sequence: steps of back-propagation through time"),
    "seed": (1, 0, 10**18, "seed of all random draws; without it, --sample writes something else each time"),
    "decay": (0.9999, 0, 1.0, "RMSProp: share of the mean of squared gradients that is kept per update"),
    "epsilon": (1e-8, 1e-30, 1.0, "RMSProp: keeps the step finite where the gradient has been zero so far"),
    "clip_norm": (1.0, 0, np.inf, "a gradient of a larger norm, a spike, is scaled back to this"),
    "weight_decay": (0.01, 0, 1.0, "weights lose this share per update, times the rate: less overfitting"),
    "warm_up": (1000, 1, 10**9, "updates of rising rate: RMSProp's means start at 0, first steps would be too large"),
    "warm_up_share": (0.15, 0, 1.0, "warm-up of a short run: this share of its updates, at least 100"),
    "beta": (0.01, 0, np.inf, "weight of the norm stabiliser"),
}


def activate(a):
    """Return f(a), where a = z + h(t-1) Whh."""
    return np.maximum(a, 0)


def slope(h):
    """Return the derivative of f at a, from h = f(a): 1 where h > 0, else 0."""
    return (h > 0).astype(h.dtype)


def init_weights(V, H, D, rng, dtype=np.float32):
    """Return the dict of weights: Wxh0 (V, H), Whh0 (H, H), bh0 (H,), Wxh1 (H, H), ... and Why (H, V), by (V,)."""
    weights = {}
    for d in range(D):
        weights[f"Wxh{d}"] = rng.normal(0, 1, (V, H)) if d == 0 else rng.normal(0, np.sqrt(2 / (H + H)), (H, H))
        weights[f"Whh{d}"] = 0.3 * np.eye(H)
        weights[f"bh{d}"] = np.zeros(H)
    weights["Why"] = rng.normal(0, np.sqrt(2 / (H + V)), (H, V))
    weights["by"] = np.zeros(V)
    return {name: array.astype(dtype) for name, array in weights.items()}


def dropout_masks(shape, rate, rng, dtype=np.float32):
    """Return masks of that shape: 0 with probability rate, else 1 / (1 - rate), so that their mean is 1."""
    return (rng.random(shape, dtype) >= rate) / dtype(1 - rate)


def forward(weights, inputs, states, masks=None):
    """Run the network over T steps. Rows of a matrix (T*B, ...) are ordered by step, then by sequence.

    inputs (T, B, V) one-hot, states (D, B, H) of the step before, masks (D, T, B, H) or None for no dropout.
    Returns the logits (T*B, V), each layer's input and the top output [(T*B, V or H)] * (D+1), and the hidden states
    (D, T+1, B, H), of which the first are those before the first step.
    """
    T, B, _ = inputs.shape
    D, _, H = states.shape
    hs = np.empty((D, T + 1, B, H), states.dtype)
    hs[:, 0] = states
    xs = [inputs.reshape(T * B, -1)]
    for d in range(D):
        h, Whh = hs[d], weights[f"Whh{d}"]
        z = (xs[d] @ weights[f"Wxh{d}"] + weights[f"bh{d}"]).reshape(T, B, H)
        for t in range(T):  # z[t] and h[t + 1] are of the same step, as h[0] is of the one before the first
            h[t + 1] = activate(z[t] + h[t] @ Whh)
        x = h[1:] if masks is None else h[1:] * masks[d]
        xs.append(x.reshape(T * B, H))
    return xs[D] @ weights["Why"] + weights["by"], xs, hs


def log_softmax(logits):
    """Return log p for each row of logits, safe from overflow."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def stabiliser(h, beta):
    """Return one layer's penalty and its gradient with respect to h(1) ... h(T), for hidden states h (T+1, B, H).

    The last step has no successor, and h(0) is given. Where a norm is 0, so is its gradient.
    """
    norms = np.linalg.norm(h, axis=-1, keepdims=True)
    growth = np.diff(norms, axis=0)
    next_growth = np.concatenate([growth[1:], np.zeros_like(growth[:1])])
    dnorms = 2 * beta / growth.size * (growth - next_growth)
    return beta * np.mean(growth**2), dnorms * h[1:] / np.where(norms[1:] > 0, norms[1:], 1)


def forward_backward(weights, inputs, targets, states, masks, beta):
    """Return the loss (mean cross-entropy in nats per character), the penalty, the gradients of their sum and the
    states (D, B, H) to carry on.

    targets (T, B) are the indices of the next characters; inputs, states and masks as in forward(). The gradient
    does not go on to the steps before the first (truncated back-propagation).
    """
    T, B, _ = inputs.shape
    D, _, H = states.shape
    logits, xs, hs = forward(weights, inputs, states, masks)
    target = np.arange(T * B), targets.ravel()  # in each row of log_p, the column of the next character
    log_p = log_softmax(logits)
    loss, penalty = -log_p[target].mean(), 0.0

    dlogits = np.exp(log_p)
    dlogits[target] -= 1  # softmax(logits) - one-hot target
    dlogits /= T * B
    grads = {"Why": xs[D].T @ dlogits, "by": dlogits.sum(axis=0)}
    dx = dlogits @ weights["Why"].T
    for d in reversed(range(D)):
        h = hs[d]
        layer_penalty, dh_penalty = stabiliser(h, beta)
        penalty += layer_penalty
        dh = dx.reshape(T, B, H) * masks[d] + dh_penalty
        slopes = slope(h[1:])
        WhhT = np.ascontiguousarray(weights[f"Whh{d}"].T)  # products with a transposed view can be far slower
        dz = np.zeros_like(h)  # dz[t] is of step t + 1, as z[t] is; dz[T] = 0: nothing comes after the last step
        for t in reversed(range(T)):
            dz[t] = (dh[t] + dz[t + 1] @ WhhT) * slopes[t]
        dz = dz[:T].reshape(T * B, H)
        grads[f"Wxh{d}"] = xs[d].T @ dz
        grads[f"Whh{d}"] = h[:T].reshape(T * B, H).T @ dz
        grads[f"bh{d}"] = dz.sum(axis=0)
        dx = dz @ weights[f"Wxh{d}"].T
    return loss, penalty, grads, hs[:, T]


def rmsprop(weights, caches, grads, rate, decay, epsilon, clip_norm, weight_decay):
    """Update weights and caches (running means of squared gradients) in place: RMSProp (Tieleman, Hinton 2012).

    A gradient (all arrays as one vector) longer than clip_norm is scaled back to it. An array's step is divided by the
    root of its number of rows (of a bias: of entries): an empirical rule, with which a rate of 0.01 learns and without
    which it does not. Weight decay is decoupled from the gradient (Loshchilov, Hutter 2017, arXiv 1711.05101).
    """
    norm = np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads.values()))
    scale = float(min(1, clip_norm / (norm + epsilon)))  # NumPy's float64 would make float64 of all arrays
    for name, grad in grads.items():
        grad = grad * scale
        caches[name] += (1 - decay) * (grad * grad - caches[name])
        step = grad / (np.sqrt(caches[name]) + epsilon) / len(grad) ** 0.5
        weights[name] -= rate * (step + weight_decay * weights[name])


def evaluate_loss(weights, text, streams=10, seq_size=100):
    """Return the mean cross-entropy in nats per character of a whole encoded text (N,), without dropout.

    It is read as parallel streams, each from a zero state; every character but the first is predicted once.
    """
    V, H = weights["Wxh0"].shape
    states = np.zeros((sum(name.startswith("Whh") for name in weights), streams, H), weights["Why"].dtype)
    nats = 0.0
    for inputs, targets in util.streams(text, streams, seq_size):
        logits, _, hs = forward(weights, util.one_hot(inputs, V, states.dtype), states)
        states = hs[:, -1]
        rows = np.flatnonzero(targets >= 0)  # the last streams may be shorter: -1 is no target
        nats -= log_softmax(logits)[rows, targets.flat[rows]].sum(dtype=np.float64)
    return nats / (len(text) - 1)


def sample(weights, vocabulary, length, temperature, rng, prime=""):
    """Draw characters one by one from softmax(logits / temperature), and yield each.

    The network first reads the prime, or, where there is none, a newline (or the first character it knows).
    """
    V, H = weights["Wxh0"].shape
    states = np.zeros((sum(name.startswith("Whh") for name in weights), 1, H), weights["Why"].dtype)
    unread = util.encode(prime or ("\n" if "\n" in vocabulary else vocabulary[0]), vocabulary)
    for _ in range(length):
        logits, _, hs = forward(weights, util.one_hot(unread[:, None], V, states.dtype), states)
        states, logits = hs[:, -1], logits[-1].astype(np.float64)
        cumulative = np.exp((logits - logits.max()) / temperature).cumsum()  # no exponent is above 0: no overflow
        unread = np.searchsorted(cumulative[:-1], rng.random(1) * cumulative[-1], side="right")  # inverse transform
        yield vocabulary[unread[0]]


def train(options):
    """Train by truncated back-propagation through time. util.Run keeps losses and checkpoints, and handles Ctrl-C."""
    run = util.Run(MODEL, options)
    text, V = run.text, len(run.text.vocabulary)
    D, T, B, H = options.depth, options.seq_size, options.batch_size, options.hidden_size
    warm_up = min(options.warm_up, max(100, options.warm_up_share * run.total))
    if not options.resume:
        run.weights = init_weights(V, H, D, run.init_rng)
        run.caches = {name: np.zeros_like(array) for name, array in run.weights.items()}
    run.begin()
    grapher = Grapher(run.csv, not options.no_window, run.warn)

    def validate():
        loss = evaluate_loss(run.weights, text.validation)
        run.note_validation(loss, "".join(sample(run.weights, text.vocabulary, 200, 0.7, run.sample_rng)))

    if run.iteration == 0:
        validate()
    while run.goes_on():
        if run.iteration % run.per_epoch == 0:
            run.states = np.zeros((D, B, H), np.float32)  # every sequence is back at the start of its stretch
        inputs, targets = util.batch(text.train, run.iteration % run.per_epoch, B, T)
        masks = dropout_masks((D, T, B, H), options.dropout, run.dropout_rng)
        loss, penalty, grads, run.states = util.in_halves(  # in two processes, where that pays
            forward_backward, run.weights, util.one_hot(inputs, V), targets, run.states, masks, options.beta)
        run.states[np.abs(run.states).max(axis=-1) > 1000] = 0  # a state that ran away starts anew (ReLU has no bound)
        rise, fall = min(1, (run.iteration + 1) / warm_up), 1 - run.iteration / run.total
        rate = options.learning_rate * rise * fall
        rmsprop(run.weights, run.caches, grads, rate, options.decay, options.epsilon, options.clip_norm,
                options.weight_decay)
        run.note(loss, penalty)
        if run.validation_is_due():
            validate()
        run.save_when_due()
        grapher.update()
    run.save()
    grapher.draw()
    run.finish()


if __name__ == "__main__":
    util.main(MODEL, __doc__, SETTINGS, train, evaluate_loss, sample)
