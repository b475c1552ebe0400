"""How far back the gradient reaches in a network, at initialisation and after training.

    python -m graphs.reach              measure into runs/reach.csv, and draw runs/reach.png
    python -m graphs.reach --on-text    what one prediction rests on: runs/reach_text.png
    python -m graphs.reach --redraw     draw from graphs/*.csv, the published measurements

The loss of a late step t depends on all hidden states before it. How much, tells the norm of its total derivative,

    || d loss(t) / d h[d](t-k) ||,    layers d = 0 ... D-1, lags k = 0 ... LAGS,

total: through all paths, up through the layers as well as along time. Where it falls exponentially in k, nothing that
is far back can be learnt from; where it rises, training blows up (Bengio, Simard, Frasconi 1994; Pascanu, Mikolov,
Bengio 2013, arXiv 1211.5063). On a text, it is the derivative with respect to each input x[0](t-k) that is drawn, in
the way of Madsen (Distill 2019): the characters before one that is predicted, tinted by its norm.
"""

import numpy as np

import util
from graph import COLORS
from graphs import common

LAGS = 200             # steps to look back
SEEDS = 5              # untrained networks per model
SEQUENCES = 16         # side by side, spread over the text
TIMES = 300, 400, 500  # steps t whose loss is derived: late, the state of the first step is long gone
STYLES = {"initial": ("at initialisation", (0, (3, 1.5))), "trained": ("after training", "solid")}
BOTTOM, TOP = 1e-14, 1e2  # of the norms drawn; whatever is below, float32 can't add to a gradient of about 1
HEADER = "model,stage,layer,lag,norm"  # the norm in nats per unit of h
KEYS = [f"{model},{stage}" for model in COLORS for stage in STYLES]
AT = 40_336            # the character of the text whose prediction is looked at: the end of a line of verse
BEFORE = 150           # characters before it that are shown; the network has read as many as MEMORY more
MEMORY = 1000
TEXT_HEADER = "model,lag,norm"  # the norm in nats per unit of a one-hot input
DECADES = 3            # of norms, from no tint to the darkest


def geometric_mean(norms, axis):
    """Return the geometric mean of the norms other than 0 along an axis; 0 where there are none.

    Norms at one lag scatter over orders of magnitude: an arithmetic mean or a root mean square would be that of the
    largest one. An exact 0 (every ReLU on the way is off) has no logarithm, and one is enough to hide all others.
    """
    nonzero = norms != 0
    count = nonzero.sum(axis)
    logs = np.log(np.where(nonzero, norms, 1))
    return np.where(count > 0, np.exp(logs.sum(axis) / np.maximum(count, 1)), 0)


def derive(model, weights, inputs, targets, lags):
    """Return || d loss(T) / d h[d](T-k) || (D, lags + 1, B), || d loss(T) / d x[0](T-k) || (lags + 1, B), loss(T) (B,).

    The model's script reads the indices inputs (T, B) from a zero state, without dropout; the loss of a sequence is
    its cross-entropy at the last step, in nats, where targets (B,) follow; lags < T. All in float64: norms may come to
    1e-200.
    """
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    D, (H, V), (T, B) = sum(name.startswith("Whh") for name in weights), weights["Why"].shape, inputs.shape
    logits, _, hs = model.forward(weights, util.one_hot(inputs, V, np.float64), np.zeros((D, B, H)))
    log_p = model.log_softmax(logits[-B:])
    dlogits = np.exp(log_p) - util.one_hot(targets, V, np.float64)
    norms, input_norms, dz = np.empty((D, lags + 1, B)), np.empty((lags + 1, B)), np.zeros((D, B, H))
    dx = dlogits @ weights["Why"].T
    for k in range(lags + 1):
        for d in reversed(range(D)):
            dh = dx + dz[d] @ weights[f"Whh{d}"].T  # dz[d] is still that of one step later
            norms[d, k] = np.linalg.norm(dh, axis=-1)
            dz[d] = dh * model.slope(hs[d, T - k])
            dx = dz[d] @ weights[f"Wxh{d}"].T
        input_norms[k] = np.linalg.norm(dx, axis=-1)
        dx = 0  # only step T has a loss; to the steps before, all comes by the recurrence
    return norms, input_norms, -log_p[np.arange(B), targets]


def average_reach(model, networks, inputs, targets):
    """Return the rows (layer, lag, norm) of one curve: geometric means over networks (dicts of weights) and TIMES."""
    norms = geometric_mean(np.concatenate([derive(model, weights, inputs[:t], targets[t - 1], LAGS)[0]
                                           for weights in networks for t in TIMES], axis=-1), axis=-1)
    return [(d, k, norms[d, k]) for d, k in np.ndindex(norms.shape) if 0 < norms[d, k] < np.inf]


def measure(options):
    """Return what is said of the saved networks, and their curves; new ones are of the same sizes."""
    if options.at != AT:
        util.fail(f"--at goes with --on-text: --on-text --at {options.at}")
    networks, curves = common.load_networks(options.runs), {}
    for name, (weights, meta) in networks.items():
        model = common.MODELS[name]
        sizes = len(meta["vocabulary"]), meta["settings"]["hidden_size"], meta["settings"]["depth"]
        new = [model.init_weights(*sizes, np.random.default_rng(seed)) for seed in range(1, SEEDS + 1)]
        text = common.read_known(options.text, {name: networks[name]}, SEQUENCES * max(TIMES) + 1)
        batch = util.batch(util.encode(text, meta["vocabulary"]), 0, SEQUENCES, max(TIMES))
        with np.errstate(all="ignore"):  # a state that overflows gives norms that are not finite, and no points
            curves[f"{name},initial"] = average_reach(model, new, *batch)
            curves[f"{name},trained"] = average_reach(model, [weights], *batch)
    return common.describe(options.text, networks), curves


def measure_on_text(options):
    """Return what is said of one prediction of each network, and on what it rests: rows (lag, norm)."""
    networks, probabilities, curves = common.load_networks(options.runs), {}, {}
    text = common.read_known(options.text, networks, BEFORE + 1)
    at = min(options.at, len(text) - 1)
    lags = min(BEFORE, at)
    for name, (weights, meta) in networks.items():
        indices = util.encode(text[max(0, at - BEFORE - MEMORY):at + 1], meta["vocabulary"])
        _, norms, loss = derive(common.MODELS[name], weights, indices[:-1, None], indices[-1:], lags - 1)
        probabilities[name] = float(np.exp(-loss[0]))
        curves[name] = list(enumerate(norms[:, 0]))
    return {**common.describe(options.text, networks), "passage": text[at - lags:at], "next": text[at],
            "probabilities": probabilities}, curves


def draw(figure, about, curves):
    """Draw the curves: one panel per layer, one colour per model, one line style per stage."""
    from matplotlib.lines import Line2D
    layers = np.unique(np.concatenate([rows[:, 0] for rows in curves.values()])).astype(int)
    panels = figure.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    for d, axes in zip(layers, panels):
        for key, rows in curves.items():
            model, stage = key.split(",")
            _, lags, norms = rows[rows[:, 0] == d].T
            axes.plot(lags, norms, color=COLORS[model], linestyle=STYLES[stage][1], linewidth=1.6)
        end = {layers[0]: ", reads the characters", layers[-1]: ", predicts"}.get(d, "")
        axes.set(yscale="log", xlim=(0, LAGS), ylim=(BOTTOM, TOP), xlabel="lag k (steps)", title=f"layer {d}{end}")
        common.finish(axes, about, note=1 if d == layers[-1] else None)
    panels[0].set_ylabel("‖∂ loss(t) / ∂ h(t − k)‖  (nats per unit of h)")
    handles = [Line2D([], [], color=COLORS[model], linewidth=3, label=f"{model}, epoch {epoch:.4g}")
               for model, epoch in about["epochs"].items()]
    handles += [Line2D([], [], color="#222222", linestyle=style, linewidth=1.6, label=label)
                for label, style in STYLES.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=(len(handles) + 1) // 2, frameon=False)


def draw_on_text(figure, about, curves):
    """Draw the text before the predicted character once for each network, tinted by how much each input matters."""
    text = about["passage"]
    for axes, (name, rows) in zip(common.panels(figure, text, len(curves)), curves.items()):
        lags, norms = rows.T
        within = int(lags[np.searchsorted(np.cumsum(norms), 0.9 * norms.sum())]) + 1
        following, p = about["next"].replace("\n", "↵").replace(" ", "a space"), about["probabilities"][name]
        axes.set_title(f"{name}: p({following}) = {p:.2f}; 90% of the gradient on {within} characters", fontsize=9,
                       loc="left", fontweight="bold", parse_math=False)
        tints = np.clip(1 + np.log10(np.maximum(norms, 1e-300) / (norms.max() or 1)) / DECADES, 0, 1)
        common.draw_text(axes, text, tints[::-1])


if __name__ == "__main__":
    common.main(__doc__, {"reach": (HEADER, KEYS, (10, 4.4), measure, draw),
                          "reach_text": (TEXT_HEADER, list(COLORS), (7, 4), measure_on_text, draw_on_text)},
                {"at": (util.number(int, 1, 10**9), AT, "N", "with --on-text: the number of the predicted character")})
