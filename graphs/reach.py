"""How far back the gradient reaches in a network, at initialisation and after training.

    python -m graphs.reach             measure the networks in runs/ into runs/reach.csv, and draw runs/reach.png
    python -m graphs.reach --redraw    draw runs/reach.png from graphs/reach.csv, the published measurements

The loss of a late step t depends on all hidden states before it. How much, tells the norm of its total derivative,

    || d loss(t) / d h[d](t-k) ||,    layers d = 0 ... D-1, lags k = 0 ... LAGS,

total: through all paths, up through the layers as well as along time. Where it falls exponentially in k, nothing that
is far back can be learnt from; where it rises, training blows up (Bengio, Simard, Frasconi 1994; Pascanu, Mikolov,
Bengio 2013, arXiv 1211.5063).
"""

import numpy as np
from matplotlib.lines import Line2D

import nprnn
import relu
import stirnn
import tanh
import util
from graph import COLORS
from graphs import common

MODELS = tanh, relu, stirnn, nprnn
LAGS = 200             # steps to look back
SEEDS = 5              # untrained networks per model
SEQUENCES = 16         # side by side, spread over the text
TIMES = 300, 400, 500  # steps t whose loss is derived: late, the state of the first step is long gone
STYLES = {"initial": ("at initialisation", (0, (3, 1.5))), "trained": ("after training", "solid")}
BOTTOM, TOP = 1e-14, 1e5  # of the norms drawn; whatever is below, float32 can't add to a gradient of about 1
HEADER = "model,stage,layer,lag,norm"  # the norm in nats per unit of h
KEYS = [f"{model},{stage}" for model in COLORS for stage in STYLES]


def geometric_mean(norms, axis):
    """Return the geometric mean of the norms other than 0 along an axis; 0 where there are none.

    Norms at one lag scatter over orders of magnitude: an arithmetic mean or a root mean square would be that of the
    largest one. An exact 0 (every ReLU on the way is off) has no logarithm, and one is enough to hide all others.
    """
    nonzero = norms != 0
    count = nonzero.sum(axis)
    logs = np.log(np.where(nonzero, norms, 1))
    return np.where(count > 0, np.exp(logs.sum(axis) / np.maximum(count, 1)), 0)


def reach(model, weights, inputs, targets, lags):
    """Return || d loss(T) / d h[d](T-k) || as an array (D, lags + 1) in nats per unit of h: geometric means over B.

    The model's script reads the indices inputs (T, B) from a zero state, without dropout; the loss of a sequence is
    its cross-entropy at the last step, where targets (B,) follow; lags < T. All in float64: norms may come to 1e-200.
    """
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    D, (H, V), (T, B) = sum(name.startswith("Whh") for name in weights), weights["Why"].shape, inputs.shape
    logits, _, hs = model.forward(weights, util.one_hot(inputs, V, np.float64), np.zeros((D, B, H)))
    dlogits = np.exp(model.log_softmax(logits[-B:])) - util.one_hot(targets, V, np.float64)
    norms, dz = np.empty((D, lags + 1, B)), np.zeros((D, B, H))  # dz: of one step later, until it is overwritten
    dx = dlogits @ weights["Why"].T
    for k in range(lags + 1):
        for d in reversed(range(D)):
            dh = dx + dz[d] @ weights[f"Whh{d}"].T
            norms[d, k] = np.linalg.norm(dh, axis=-1)
            dz[d] = dh * model.slope(hs[d, T - k])
            dx = dz[d] @ weights[f"Wxh{d}"].T
        dx = 0  # only step T has a loss; to the steps before, all comes by the recurrence
    return geometric_mean(norms, axis=-1)


def new_network(model, sizes, seed):
    """Return initial weights; STIRNN's output weights, 0 at first and so of no gradient, are those of relu.py."""
    weights = model.init_weights(*sizes, np.random.default_rng(seed))
    if model is stirnn:
        weights["Why"] = relu.init_weights(*sizes, np.random.default_rng(seed))["Why"]
    return weights


def average_reach(model, networks, inputs, targets):
    """Return the rows (layer, lag, norm) of one curve: geometric means over networks (dicts of weights) and TIMES."""
    norms = geometric_mean(np.stack([reach(model, weights, inputs[:t], targets[t - 1], LAGS)
                                     for weights in networks for t in TIMES]), axis=0)
    return [(d, k, norms[d, k]) for d, k in np.ndindex(norms.shape) if 0 < norms[d, k] < np.inf]


def measure(options):
    """Return what is said of the saved networks in a folder, and their curves; new ones are of the same sizes."""
    models = [model for model in MODELS if (options.runs / f"{model.MODEL}.npz").exists()]
    if not models:
        util.fail(f"there is no saved network in {options.runs}; train one first: {util.command('relu', options.runs)}")
    metas, curves = {}, {}
    for model in models:
        weights, meta = common.load(options.runs, model.MODEL)
        metas[model.MODEL] = meta
        sizes = len(meta["vocabulary"]), meta["settings"]["hidden_size"], meta["settings"]["depth"]
        new = [new_network(model, sizes, seed) for seed in range(1, SEEDS + 1)]
        text = common.read_known(options.text, [meta], SEQUENCES * max(TIMES) + 1)
        batch = util.batch(util.encode(text, meta["vocabulary"]), 0, SEQUENCES, max(TIMES))
        with np.errstate(all="ignore"):  # a state that overflows gives norms that are not finite, and no points
            curves[f"{model.MODEL},initial"] = average_reach(model, new, *batch)
            curves[f"{model.MODEL},trained"] = average_reach(model, [weights], *batch)
    return common.describe(options.text, metas), curves


def draw(figure, about, curves):
    """Draw the curves: one panel per layer, one colour per model, one line style per stage."""
    layers = np.unique(np.concatenate([rows[:, 0] for rows in curves.values()])).astype(int)
    panels = figure.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    models = {key.split(",")[0]: None for key in curves}
    for d, axes in zip(layers, panels):
        for key, rows in curves.items():
            model, stage = key.split(",")
            _, lags, norms = rows[rows[:, 0] == d].T
            axes.plot(lags, norms, color=COLORS[model], linestyle=STYLES[stage][1], linewidth=1.6)
        end = {layers[0]: ", reads the characters", layers[-1]: ", predicts"}.get(d, "")
        axes.set(yscale="log", xlim=(0, LAGS), ylim=(BOTTOM, TOP), xlabel="lag k (steps)", title=f"layer {d}{end}")
        common.finish(axes, about, note=1 if d == layers[-1] else None)
    panels[0].set_ylabel("‖∂ loss(t) / ∂ h(t − k)‖  (nats per unit of h)")
    handles = [Line2D([], [], color=COLORS[model], linewidth=3, label=model + common.epoch(about, model))
               for model in models]
    handles += [Line2D([], [], color="#222222", linestyle=style, linewidth=1.6, label=label)
                for label, style in STYLES.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=(len(handles) + 1) // 2, frameon=False)


if __name__ == "__main__":
    common.main("reach", __doc__, HEADER, KEYS, (10, 4.4), measure, draw)
