"""What the norm stabiliser is worth: two IRNNs, trained with and without it, read far beyond their training horizon.

    python stirnn.py --epochs 20; python stirnn.py --epochs 20 --beta 0 --out runs/plain
    python -m graphs.norms --runs runs --plain runs/plain    measure both, draw runs/norms.png
    python -m graphs.norms             the project's network, with what graphs/norms.csv has of the one without
    python -m graphs.norms --redraw    draw from graphs/norms.csv, the published measurements

Training sees 100 steps at a time. Here a network reads one stream of 10,100 characters, and nothing holds it but what
its penalty has taught it: to keep the norms of the hidden states where they are (Krueger, Memisevic 2016).
"""

from pathlib import Path

import numpy as np

import stirnn
import util
from graph import COLORS
from graphs import common

STEPS = 10_100  # to read: the training horizon, and a hundred times as many steps
POINTS = 150    # of a curve, at steps in about equal ratios; each stands for the steps since the one before
WINDOW = 100    # least number of steps that a cross-entropy is the mean of
HEADER = "network,step,lowest,mean,highest,cross_entropy"  # norms, nats per character
STYLES = {"stabilised": ("with the stabiliser", COLORS["stirnn"]), "plain": ("without (--beta 0)", "#444444")}
KEYS = list(STYLES)
TOP_NORM, TOP_LOSS = 1e6, 6.0  # what is larger is drawn there; guessing among 65 characters costs 4.2 nats


def read_stream(weights, inputs, targets):
    """Return the norms of the hidden states, the largest over layers, and cross-entropies in nats: an array (2, N).

    The network reads the indices inputs (N,) as one stream from a zero state, in its own float32; targets (N,) are the
    characters that follow. Where a state has overflowed, both are inf.
    """
    D, (V, H) = sum(name.startswith("Whh") for name in weights), weights["Wxh0"].shape
    with np.errstate(all="ignore"):
        logits, _, hs = stirnn.forward(weights, util.one_hot(inputs[:, None], V), np.zeros((D, 1, H), np.float32))
        norms = np.linalg.norm(hs[:, 1:, 0].astype(np.float64), axis=-1).max(axis=0)
        nats = -stirnn.log_softmax(logits)[np.arange(len(targets)), targets]
    return np.nan_to_num([norms, nats], nan=np.inf, posinf=np.inf)


def thin(norms, nats):
    """Return about POINTS rows as of HEADER, without the network; the step is the last that a row stands for."""
    ends, rows = np.unique(np.geomspace(1, len(nats), POINTS).astype(int)), []
    for start, end in zip([0, *ends], ends):
        part = norms[start:end]
        loss = nats[max(0, min(start, end - WINDOW)):end].mean()
        rows.append([end, part.min(), part.mean(), part.max(), loss])
    return rows


def measure(options):
    """Return what is said of the two networks, and their curves; the published one of that which is not given."""
    about, curves = common.read_csv(common.GRAPHS / "norms.csv", HEADER, KEYS)
    networks = {"stabilised": util.load_network("stirnn", options.runs or util.DATA, quiet=True)}
    if options.plain:
        networks["plain"] = util.load_network("stirnn", options.plain, quiet=True)
        settings = {name: {**meta["settings"], "text": meta["sha256"]} for name, (_, meta) in networks.items()}
        other = [name for name, value in settings["stabilised"].items() if value != settings["plain"][name]]
        if settings["plain"]["beta"] != 0 or "beta" not in other:
            util.fail(f"{options.plain} is to have a network that was trained with --beta 0, and the other one not")
        if other != ["beta"]:
            util.warn(f"Beware: not only their beta is different, but {', '.join(sorted({*other} - {'beta'}))} too")
    text = common.read_known(options.text, networks, STEPS + 1)[:STEPS + 1]
    for name, (weights, meta) in networks.items():
        indices = util.encode(text, meta["vocabulary"])
        curves[name] = thin(*read_stream(weights, indices[:-1], indices[1:]))
    news = common.describe(options.text, networks)
    if not options.plain and about["text"] != news["text"]:
        util.warn(f"Beware: the network without the stabiliser has read {about['text']}, not {news['text']}")
    if not options.plain and about["epochs"]["plain"] != news["epochs"]["stabilised"]:
        util.warn(f"Beware: the network without the stabiliser is that of epoch {about['epochs']['plain']:.4g}, "
                  f"the other one of epoch {news['epochs']['stabilised']:.4g}")
    return {**news, "epochs": {**about["epochs"], **news["epochs"]}}, curves


def draw(figure, about, curves):
    """Draw norms (line: mean, band: lowest to highest) and cross-entropies against the step."""
    from matplotlib.ticker import LogFormatter
    left, right = figure.subplots(1, 2)
    left.set(ylabel="norm of the hidden state, largest over layers", yscale="log")
    right.set(ylabel=f"cross-entropy (nats per character),\nmean of {WINDOW} steps or more (at first of all)")
    for name, rows in curves.items():
        label, color = STYLES[name]
        label += f", epoch {about['epochs'][name]:.4g}"
        steps, *norms, nats = rows.T
        off = steps[(norms[2] > TOP_NORM) | (nats > TOP_LOSS)]
        if off.size:
            label += f"; off the axes by step {off[0]:,.0f}, then drawn at their top"
        lowest, mean, highest = np.clip(norms, 1e-3, TOP_NORM)  # 0 has no place on a logarithmic axis
        left.fill_between(steps, lowest, highest, color=color, alpha=0.25, linewidth=0)
        left.plot(steps, mean, color=color, linewidth=1.6, label=label)
        right.plot(steps, np.minimum(nats, TOP_LOSS), color=color, linewidth=1.6)
    left.yaxis.set(major_formatter=LogFormatter(), minor_formatter=LogFormatter())  # 20, not 2 x 10^1
    for axes in left, right:
        axes.set(xscale="log", xlim=(1, STEPS))
        axes.set_xlabel(f"step (character of {about['text']})", parse_math=False)  # a file's name may have dollars
        common.finish(axes, about, note=0)
    figure.legend(loc="outside upper center", frameon=False)


if __name__ == "__main__":
    common.main(__doc__, {"norms": (HEADER, KEYS, (10, 4.2), measure, draw)},
                {"plain": (Path, None, "DIR", "folder of a network trained without the stabiliser (--beta 0)")})
