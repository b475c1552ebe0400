"""How far back the gradient reaches in each of the four networks, at initialisation and after training.

The loss of a late step t depends on all hidden states before it. How much, tells the norm of its total derivative,

    || d loss(t) / d h[d](t-k) ||,    layers d = 0 ... D-1, lags k = 0 ... LAGS,

total: through all paths, up through the layers as well as along time. Where it falls exponentially in k, nothing that
is far back can be learnt from; where it rises, training blows up (Bengio, Simard, Frasconi 1994; Pascanu, Mikolov,
Bengio 2013, arXiv 1211.5063). From the project's root:

    python -m graphs.reach [--runs DIR]    measure into graphs/reach.csv, and draw graphs/reach.png
    python -m graphs.reach --redraw        only draw, from graphs/reach.csv alone

A network is measured after training where DIR (default runs) holds its checkpoint; else its curve in reach.csv stays.
"""

import argparse
import math
from pathlib import Path

import util  # before NumPy: it sets up NumPy's BLAS

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import nprnn
import relu
import stirnn
import tanh
from graph import COLORS

MODELS = tanh, relu, stirnn, nprnn
LAGS = 200             # steps to look back
SEEDS = 5              # untrained networks per model
SEQUENCES = 16         # side by side, spread over the text
TIMES = 300, 400, 500  # steps t whose loss is derived: late, the state of the first step is long gone
TEXT = util.DATA / "play.txt"
CSV = Path(__file__).resolve().with_suffix(".csv")
COLUMNS = "model", "stage", "layer", "lag", "norm"  # the norm in nats per unit of h
STYLES = {"initial": ("at initialisation", (0, (3, 1.5))), "trained": ("after training", "solid")}
BOTTOM, TOP = 1e-14, 1e5  # of the norms drawn; whatever is below, float32 can't add to a gradient of about 1


def geometric_mean(norms, axis):
    """Return the geometric mean of the norms above 0 along an axis; 0 where there are none.

    Norms at one lag scatter over orders of magnitude: an arithmetic mean or a root mean square would be that of the
    largest one. An exact 0 (every ReLU on the way is off) has no logarithm, and one is enough to hide all others.
    """
    positive = norms > 0
    count = positive.sum(axis)
    return np.where(count, np.exp(np.log(np.where(positive, norms, 1)).sum(axis) / np.maximum(count, 1)), 0)


def reach(model, weights, inputs, targets, lags):
    """Return || d loss(T) / d h[d](T-k) || as an array (D, lags + 1) in nats per unit of h: geometric means over B.

    The model's script reads the indices inputs (T, B) from a zero state, without dropout; the loss of a sequence is
    its cross-entropy at the last step, where targets (B,) follow; lags < T. All in float64: norms may come to 1e-200.
    """
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    D, (H, V), B = len(weights) // 3, weights["Why"].shape, inputs.shape[1]
    logits, _, hs = model.forward(weights, util.one_hot(inputs, V, np.float64), np.zeros((D, B, H)))
    dlogits = np.exp(model.log_softmax(logits[-B:])) - util.one_hot(targets, V, np.float64)
    norms, dz = np.empty((D, lags + 1, B)), np.zeros((D, B, H))  # dz: of one step later, until it is overwritten
    for k in range(lags + 1):
        dx = dlogits @ weights["Why"].T if k == 0 else 0  # only step T has a loss, all else comes by the recurrence
        for d in reversed(range(D)):
            dh = dx + dz[d] @ weights[f"Whh{d}"].T
            norms[d, k] = np.linalg.norm(dh, axis=-1)
            dz[d] = dh * model.slope(hs[d][-1 - k])
            dx = dz[d] @ weights[f"Wxh{d}"].T
    return geometric_mean(norms, axis=-1)


def average_reach(model, networks, vocabulary):
    """Return one model's curves {layer: {lag: norm}}: geometric means over networks (dicts of weights) and TIMES."""
    text = "".join(filter(set(vocabulary).__contains__, util.read_text(TEXT)))  # less what a trained network can't read
    if len(text) <= SEQUENCES * max(TIMES):
        util.fail(f"{TEXT} has {len(text):,} characters that {model.MODEL} knows, too few to measure on")
    inputs, targets = util.batch(util.encode(text, vocabulary), 0, SEQUENCES, max(TIMES))
    with np.errstate(all="ignore"):  # a state that overflows gives norms that are not finite, and no points
        norms = geometric_mean(np.stack([reach(model, weights, inputs[:t], targets[t - 1], LAGS)
                                         for weights in networks for t in TIMES]), axis=0)
    return {d: {k: norm for k, norm in enumerate(row) if 0 < norm < math.inf} for d, row in enumerate(norms)}


def new_network(model, vocabulary_size, seed):
    """Return initial weights; STIRNN's output weights, 0 at first and so of no gradient, are those of relu.py."""
    sizes = vocabulary_size, model.HIDDEN_SIZE, model.DEPTH
    weights = model.init_weights(*sizes, np.random.default_rng(seed))
    if model is stirnn:
        weights["Why"] = relu.init_weights(*sizes, np.random.default_rng(seed))["Why"]
    return weights


def measure(runs):
    """Return the curves {(model, stage): {layer: {lag: norm}}} of new networks, and of the checkpoints in a folder."""
    characters, curves = util.vocabulary(util.read_text(TEXT)), {}
    for model in MODELS:
        networks = [new_network(model, len(characters), seed) for seed in range(1, SEEDS + 1)]
        curves[model.MODEL, "initial"] = average_reach(model, networks, characters)
        path = runs / f"{model.MODEL}.npz"
        if path.exists():
            run = util.load_checkpoint(path, model.MODEL)
            curves[model.MODEL, "trained"] = average_reach(model, [run.weights], run.vocabulary)
        util.say(f"{model.MODEL}: measured at initialisation{f' and after training: {path}' * path.exists()}")
    return curves


def read_curves(path):
    """Return the curves in a CSV file that write_curves wrote; ends the program if it is none."""
    curves = {}
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            model, stage, layer, lag, norm = line.split(",")
            COLORS[model], STYLES[stage], math.log(float(norm))  # all of them known, the norm above 0
            curves.setdefault((model, stage), {}).setdefault(int(layer), {})[int(lag)] = float(norm)
        if header != ",".join(COLUMNS) or not curves:
            raise ValueError
    except OSError as error:
        util.fail(f"cannot read {path}: {util.reason(error)}")
    except (ValueError, KeyError):
        util.fail(f"{path} is damaged; remove it and measure anew: python -m graphs.reach")
    return curves


def write_curves(path, curves):
    rows = [f"{model},{stage},{d},{k},{norm:.3g}" for (model, stage), layers in sorted(curves.items())
            for d, norms in layers.items() for k, norm in norms.items()]
    util.write_file(path, lambda file: file.write("\n".join([",".join(COLUMNS), *rows, ""]).encode()))


def draw(path, curves):
    """Draw the curves into a PNG file: one panel per layer, one colour per model, one line style per stage."""
    layers = sorted(set().union(*curves.values()))
    figure = Figure((10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    for d, axes in zip(layers, panels):
        for (model, stage), norms in curves.items():
            if d in norms:
                axes.plot(*zip(*norms[d].items()), color=COLORS[model], linestyle=STYLES[stage][1], linewidth=1.6)
        axes.axvline(stirnn.SEQ_SIZE, color="#888888", linewidth=0.8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        end = {layers[0]: ", reads the characters", layers[-1]: ", predicts"}.get(d, "")
        axes.set(yscale="log", xlim=(0, LAGS), ylim=(BOTTOM, TOP), xlabel="lag k (steps)", title=f"layer {d}{end}")
    panels[0].set_ylabel("‖∂ loss(t) / ∂ h(t − k)‖  (nats per unit of h)")
    panels[-1].annotate("training looks back\nthis far at most", (stirnn.SEQ_SIZE, TOP), (5, -2), va="top", fontsize=9,
                        textcoords="offset points", color="#555555")
    handles = [Line2D([], [], color=color, linewidth=3, label=model) for model, color in COLORS.items()]
    handles += [Line2D([], [], color="#222222", linestyle=style, linewidth=1.6, label=label)
                for stage, (label, style) in STYLES.items() if any(stage in key for key in curves)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    util.write_file(path, lambda file: figure.savefig(file, format="png", dpi=160, facecolor="white"))


def main():
    parser = argparse.ArgumentParser(prog="python -m graphs.reach", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder of the trained networks (default runs)")
    parser.add_argument("--redraw", action="store_true", help=f"draw from {CSV.name} alone, measure nothing")
    parser.error = util.fail
    arguments = parser.parse_args()
    if arguments.runs and not any((arguments.runs / f"{model}.npz").exists() for model in COLORS):
        util.fail(f"there is no saved network in {arguments.runs}")
    curves = read_curves(CSV) if arguments.redraw or CSV.exists() else {}
    try:
        if not arguments.redraw:
            kept = {key: layers for key, layers in curves.items() if key[1] == "trained"}
            curves = kept | measure(arguments.runs or Path("runs"))
            write_curves(CSV, curves)
        draw(CSV.with_suffix(".png"), curves)
    except OSError as error:
        util.fail(f"cannot write to {CSV.parent}: {util.reason(error)}")
    util.say(f"Drawn: {CSV.with_suffix('.png')}")


if __name__ == "__main__":
    main()
