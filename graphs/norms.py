"""What the norm stabiliser is worth: two IRNNs, trained with and without it, read far beyond their training horizon.

In training, stirnn.py sees 100 steps at a time and holds the states that it carries on at a modest norm. Here it
reads one stream of 10,100 characters, and nothing holds it but what its penalty has taught it: to keep the norms of
the hidden states where they are (Krueger, Memisevic 2016, arXiv 1511.08400). The two networks, alike but for BETA, are
trained, and then read and drawn, from the project's root by

    python stirnn.py --epochs 20 --no-plot --out runs/stabilised
    python -m graphs.norms --train-plain --epochs 20 --no-plot --out runs/plain
    python -m graphs.norms --stabilised runs/stabilised/stirnn.npz --plain runs/plain/stirnn.npz

which writes graphs/norms.csv and graphs/norms.png; a stopped training goes on by the same command with --resume.
Without arguments the figure is drawn from graphs/norms.csv alone.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import util  # before NumPy: it sets up NumPy's BLAS

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

import stirnn
from graph import COLORS

STEPS = 10_100  # to read: the training horizon, and a hundred times as many steps
POINTS = 150    # of a curve, at steps in about equal ratios; each stands for the steps since the one before
WINDOW = 100    # least number of steps that a cross-entropy is the mean of
CSV = Path(__file__).resolve().with_suffix(".csv")
COLUMNS = "network", "step", "lowest", "mean", "highest", "cross_entropy"  # norms, nats per character
STYLES = {"stabilised": ("with the stabiliser", COLORS["stirnn"]), "plain": ("without", "#444444")}
TOP_NORM, TOP_LOSS = 1e6, 6.0  # what is larger is drawn there; guessing among 65 characters costs 4.2 nats


def read_stream(weights, inputs, targets):
    """Return the norms of the hidden states, the largest over layers, and cross-entropies in nats: an array (2, N).

    The network reads the indices inputs (N,) as one stream from a zero state, in its own float32; targets (N,) are the
    characters that follow. Where a state has overflowed, both are inf.
    """
    V, H = weights["Wxh0"].shape
    states, norms, nats = np.zeros((len(weights) // 3, 1, H), np.float32), [], []
    with np.errstate(all="ignore"):
        for start in range(0, len(inputs), stirnn.SEQ_SIZE):
            chunk = slice(start, start + stirnn.SEQ_SIZE)
            logits, _, hs = stirnn.forward(weights, util.one_hot(inputs[chunk, None], V), states)
            states = np.stack([h[-1] for h in hs])
            norms.extend(np.linalg.norm(np.stack(hs)[:, 1:, 0].astype(np.float64), axis=-1).max(axis=0))
            nats.extend(-stirnn.log_softmax(logits)[np.arange(len(logits)), targets[chunk]])
    return np.nan_to_num([norms, nats], nan=np.inf, posinf=np.inf)


def thin(norms, nats):
    """Return about POINTS rows as of COLUMNS, without the network; the step is the last that a row stands for."""
    ends, rows = np.unique(np.geomspace(1, len(nats), POINTS).astype(int)), []
    for start, end in zip([0, *ends], ends):
        part = norms[start:end]
        loss = nats[max(0, min(start, end - WINDOW)):end].mean()
        rows.append([end, part.min(), part.mean(), part.max(), loss])
    return rows


def measure(paths, text):
    """Return what the file says of them, and their rows, of the checkpoints in a dict of paths that read a text."""
    runs = {name: util.load_checkpoint(path, stirnn.MODEL) for name, path in paths.items()}
    for name, run in runs.items():
        stabilised = any(row[-1] > 0 for row in run.history)  # the penalties
        if stabilised != (name == "stabilised"):
            util.fail(f"{paths[name]} was trained {'with' if stabilised else 'without'} the stabiliser: not --{name}")
    known = set.intersection(*(set(run.vocabulary) for run in runs.values()))
    characters = "".join(filter(known.__contains__, util.read_text(text)))[:STEPS + 1]
    if len(characters) <= STEPS:
        util.fail(f"{text} has {len(characters):,} characters that both networks know, and it takes {STEPS + 1:,}")
    about, curves = {"text": Path(text).name, "epochs": {}}, {}
    for name, run in runs.items():
        about["epochs"][name] = run.history[-1][1]
        indices = util.encode(characters, run.vocabulary)
        curves[name] = thin(*read_stream(run.weights, indices[:-1], indices[1:]))
    return about, curves


def write_csv(path, about, curves):
    rows = [",".join([name, str(step), *(f"{value:.4g}" for value in values)])
            for name, rows in curves.items() for step, *values in rows]
    lines = f"# {json.dumps(about)}", ",".join(COLUMNS), *rows, ""
    util.write_file(path, lambda file: file.write("\n".join(lines).encode()))


def read_csv(path):
    """Return about and curves as write_csv() got them; ends the program if the file is not whole."""
    try:
        about, header, *lines = path.read_text(encoding="utf-8").splitlines()
        about, curves = json.loads(about.removeprefix("# ")), {name: [] for name in STYLES}
        for line in lines:
            name, *row = line.split(",")
            curves[name].append([float(value) for value in row])
            if len(row) != len(COLUMNS) - 1 or math.isnan(sum(curves[name][-1])):
                raise ValueError
        if not (about["text"] and about["epochs"].keys() >= STYLES.keys() and all(curves.values())):
            raise ValueError
    except OSError as error:
        util.fail(f"cannot read {path}: {util.reason(error)}; give two networks with --stabilised and --plain")
    except (ValueError, LookupError, TypeError, AttributeError):
        util.fail(f"{path} is damaged; measure anew with --stabilised and --plain")
    return about, curves


def draw(path, about, curves):
    """Draw norms (line: mean, band: lowest to highest) and cross-entropies against the step into a PNG file."""
    figure = Figure((10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(ylabel="norm of the hidden state, largest over layers", yscale="log")
    right.set(ylabel=f"cross-entropy (nats per character),\nmean of {WINDOW} steps or more")
    for name, rows in curves.items():
        label, color = STYLES[name]
        label += f", after {about['epochs'][name]:.3g} epochs"
        steps, *norms, nats = np.array(rows).T
        off = steps[(norms[2] > TOP_NORM) | (nats > TOP_LOSS)]
        if off.size:
            label += f"; off the axes by step {off[0]:,.0f}, then drawn at their top"
        lowest, mean, highest = np.clip(norms, 1e-3, TOP_NORM)  # 0 has no place on a logarithmic axis
        left.fill_between(steps, lowest, highest, color=color, alpha=0.25, linewidth=0)
        left.plot(steps, mean, color=color, linewidth=1.6, label=label)
        right.plot(steps, np.minimum(nats, TOP_LOSS), color=color, linewidth=1.6)
    left.yaxis.set(major_formatter=LogFormatter(), minor_formatter=LogFormatter())  # 20, not 2 x 10^1
    for axes in left, right:
        axes.set(xscale="log", xlim=(1, STEPS), xlabel=f"step (character of {about['text']})")
        axes.axvline(stirnn.SEQ_SIZE, color="#888888", linewidth=0.8)
        axes.annotate("training horizon", (stirnn.SEQ_SIZE, 0), (4, 4), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", fontsize=9, color="#555555")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", frameon=False)
    util.write_file(path, lambda file: figure.savefig(file, format="png", dpi=160, facecolor="white"))


def main():
    parser = argparse.ArgumentParser(prog="python -m graphs.norms", description=__doc__.splitlines()[0])
    parser.add_argument("--stabilised", type=Path, metavar="PATH", help="checkpoint of stirnn.py as it is")
    parser.add_argument("--plain", type=Path, metavar="PATH", help="checkpoint of stirnn.py with BETA = 0")
    parser.add_argument("--text", metavar="FILE", help="UTF-8 text to read (default data/shakespear_val.txt, or "
                        "data/play.txt where that has not been downloaded)")
    parser.add_argument("--train-plain", nargs=argparse.REMAINDER, metavar="...",
                        help="train with BETA = 0; all that follows are options of stirnn.py")
    parser.error = util.fail
    arguments = parser.parse_args()
    if arguments.train_plain is not None:
        stirnn.BETA, sys.argv[1:] = 0.0, arguments.train_plain
        util.main(stirnn.MODEL, stirnn.__doc__, {name: getattr(stirnn, name.upper()) for name in util.SETTINGS},
                  stirnn.train, stirnn.sample)  # ends the program
    paths = {name: getattr(arguments, name) for name in STYLES if getattr(arguments, name)}
    missing = [path for path in paths.values() if not path.exists()]
    if len(paths) == 1 or (arguments.text and not paths):
        util.fail("it takes both --stabilised and --plain")
    if missing:
        util.warn(f"there is no saved network {missing[0]}; drawing from {CSV}")
    shakespeare = util.DATA / "shakespear_val.txt"
    text = arguments.text or (shakespeare if shakespeare.exists() else util.DATA / "play.txt")
    try:
        if paths and not missing:
            write_csv(CSV, *measure(paths, text))
        draw(CSV.with_suffix(".png"), *read_csv(CSV))
    except OSError as error:
        util.fail(f"cannot write to {CSV.parent}: {util.reason(error)}")
    util.say(f"Drawn: {CSV.with_suffix('.png')}")


if __name__ == "__main__":
    main()
