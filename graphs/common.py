"""What the figures of this folder share: the command line, the networks they show, and files to draw from alone."""

import argparse
import io
import json
import math
import signal
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import util

GRAPHS = Path(__file__).resolve().parent
TEXTS = util.DATA / "shakespear_val.txt", util.PLAY  # to read if nothing else is given: the first that is there
OPTIONS = {  # of both figures: value, what it stands for, what it is
    "runs": (Path("runs"), "DIR", "folder of the trained networks"),
    "out": (Path("runs"), "DIR", "folder to write the figure and its CSV file to"),
    "text": (None, "FILE", "UTF-8 text that the networks read (default data/shakespear_val.txt, or data/play.txt where "
                           "that has not been downloaded)"),
}


def main(name, description, header, keys, size, measure, draw, options=()):
    """Measure networks into a CSV file and draw it, as the command line says.

    measure(options) returns what is said of the networks, a dict, and the curves {key: rows of numbers};
    draw(figure, about, curves) draws them into a figure of that size in inches. A row of the file is a key, which is
    one of the keys, and numbers; the header names its columns. options go with OPTIONS.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the program without a traceback
    parser = argparse.ArgumentParser(prog=f"python -m graphs.{name}", description=description.splitlines()[0])
    for option, (value, what, text) in {**OPTIONS, **dict(options)}.items():
        text += "" if value is None else f" (default {value})"
        parser.add_argument(f"--{option}", type=Path, default=value, metavar=what, help=text)
    parser.add_argument("--redraw", action="store_true", help=f"measure nothing: draw from graphs/{name}.csv alone")
    parser.error = util.fail
    options = parser.parse_args()
    options.text = options.text or next(path for path in TEXTS if path.exists() or path == TEXTS[-1])
    source, target = GRAPHS / f"{name}.csv", options.out / f"{name}.csv"
    try:
        if not options.redraw:
            source = target
            write_csv(source, header, *measure(options))
        figure = Figure(size, layout="constrained")
        draw(figure, *read_csv(source, header, keys))
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160, facecolor="white")
        util.write_file(target.with_suffix(".png"), picture.getvalue())
    except OSError as error:
        util.fail(f"cannot write to {options.out}: {util.reason(error)}")
    util.say(f"Drawn: {target.with_suffix('.png')}, from {source}")


# Networks --------------------------------------------------------------------------------------------------------

def load(folder, model, *words):
    """Return weights and meta of the lowest validation loss of a run, which these words on its command line make."""
    path = folder / f"{model}.npz"
    if not path.exists():
        util.fail(f"there is no saved network {path}; train one first: {util.command(model, folder, *words)}")
    meta, arrays = util.load_checkpoint(path, model)
    util.say(f"{path}: the network of epoch {meta['best_epoch']:.4g}, validation loss {meta['best_loss']:.4f}")
    return util.part(arrays, "best"), meta


def read_known(path, metas, needed):
    """Return a text without the characters that one of the networks does not know; ends the program if it is short."""
    known = set.intersection(*(set(meta["vocabulary"]) for meta in metas))
    text = "".join(character for character in util.read_text(path, "--text") if character in known)
    if len(text) < needed:
        util.fail(f"{path} has {len(text):,} characters that the networks know, and it takes {needed:,}")
    return text


def describe(text, metas):
    """Return what the file of a figure says of its networks, by name: the text that they read, epochs, horizons."""
    return {"text": text.name, "epochs": {name: meta["best_epoch"] for name, meta in metas.items()},
            "horizons": sorted({meta["settings"]["seq_size"] for meta in metas.values()})}


def epoch(about, name):
    """Return words for the epoch of a network, none where an older file does not tell."""
    epochs = about.get("epochs", {})
    return f", epoch {epochs[name]:.4g}" if name in epochs else ""


def finish(axes, about, note=None):
    """Add to the axes what all have: a grid, and lines at the steps of back-propagation with a note at that height."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for horizon in about.get("horizons", [100]):
        axes.axvline(horizon, color="#888888", linewidth=0.8)
        if note is not None:
            axes.annotate("training horizon", (horizon, note), (4, 4 - 8 * note), xycoords=axes.get_xaxis_transform(),
                          textcoords="offset points", va="top" if note else "bottom", fontsize=9, color="#555555")


# Files -----------------------------------------------------------------------------------------------------------

def write_csv(path, header, about, curves):
    """Write a CSV file: what is said of the networks as a line of JSON, the names of the columns, the rows."""
    rows = [",".join([key, *(f"{value:.5g}" for value in row)]) for key, rows in curves.items() for row in rows]
    util.write_file(path, "".join(f"{line}\n" for line in (f"# {json.dumps(about)}", header, *rows)).encode())


def read_csv(path, header, keys):
    """Return about and the curves {key: array of rows} of a CSV file; ends the program if it is not whole."""
    try:
        content = path.read_text(encoding="utf-8")
        lines, curves, numbers = content.splitlines(), {}, header.count(",") - keys[0].count(",")
        about = json.loads(lines.pop(0)[1:]) if content.startswith("#") else {}  # an older file may say nothing
        if not isinstance(about, dict) or lines.pop(0) != header or not lines or not content.endswith("\n"):
            raise ValueError
        for line in lines:
            key, *row = line.rsplit(",", numbers)
            curves.setdefault(key, []).append([float(value) for value in row])
            if key not in keys or len(row) != numbers or math.isnan(sum(curves[key][-1])):
                raise ValueError
        return about, {key: np.array(rows) for key, rows in curves.items()}
    except OSError as error:
        util.fail(f"cannot read {path}: {util.reason(error)}")
    except (ValueError, LookupError):
        util.fail(f"{path} is damaged; measure anew, without --redraw")
