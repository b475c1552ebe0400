"""What the figures of this folder share: the command line, the networks they show, text on tints, files."""

import argparse
import io
import json
import math
from pathlib import Path

import numpy as np

import nprnn
import relu
import stirnn
import tanh
import util

GRAPHS = Path(__file__).resolve().parent
MODELS = {model.MODEL: model for model in (tanh, relu, stirnn, nprnn)}
COLUMNS = 80  # of a text on tints
OPTIONS = {  # of all figures: its type, value, what it stands for, what it is
    "runs": (Path, None, "DIR", "folder of one's own trained networks (default: those that come with the project)"),
    "out": (Path, Path("runs"), "DIR", "folder to write the figure and its CSV file to"),
    "text": (Path, util.PLAY, "FILE", "UTF-8 text that the networks read"),
}


def main(description, figures, options):
    """Measure networks into a CSV file and draw it, as the command line says.

    figures are, by the name of their files, (header, keys, size, measure, draw): the one of the module's name, and
    perhaps one more, which --on-text asks for. measure(options) returns what is said of the networks, a dict, and the
    curves {key: rows of numbers}; draw(figure, about, curves) draws them into a figure of that size in inches. A row of
    the file is a key, which is one of the keys, and numbers; the header names its columns. options go with OPTIONS.
    """
    util.set_up_console()
    name, *others = figures
    parser = argparse.ArgumentParser(prog=f"python -m graphs.{name}", description=description.splitlines()[0])
    for option, (kind, value, what, text) in {**OPTIONS, **options}.items():
        text += "" if value is None else f" (default {value})"
        parser.add_argument(f"--{option}", type=kind, default=value, metavar=what, help=text)
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw from the file in graphs/ alone")
    if others:
        parser.add_argument("--on-text", action="store_true", help="show it on a passage of text")
    parser.error = lambda message: util.fail(f"{message}; --help lists all options")
    options = parser.parse_args()
    for option, value in vars(options).items():
        if options.redraw and option not in ("redraw", "on_text", "out") and value != parser.get_default(option):
            util.fail(f"--{option} cannot be given with --redraw, which measures nothing")
    util.set_up_matplotlib()
    from matplotlib.figure import Figure
    if others and options.on_text:
        name, = others
    header, keys, size, measure, draw = figures[name]
    source, target = GRAPHS / f"{name}.csv", options.out / f"{name}.csv"
    try:
        if not options.redraw:
            source = target
            write_csv(source, header, *measure(options))
        figure = Figure(size, layout="constrained")
        draw(figure, *read_csv(source, header, keys))
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110, facecolor="white")
        util.write_file(target.with_suffix(".png"), picture.getvalue())
    except OSError as error:
        util.fail(f"cannot write to {options.out}: {util.reason(error)}")
    util.say(f"Drawn: {target.with_suffix('.png')}, from {source}")


# Networks and what they read -------------------------------------------------------------------------------------

def load_networks(folder):
    """Return (weights, meta), by model, of all saved networks in a folder, or of those that come with the project."""
    models = [name for name in MODELS if folder is None or (folder / f"{name}.npz").exists()]
    if not models:
        util.fail(f"there is no saved network in {folder}; train one first: {util.command('relu', folder)}")
    return {name: util.load_network(name, folder or util.DATA, quiet=True) for name in models}


def read_known(path, networks, needed):
    """Return a text without the characters that one of the networks does not know; ends the program if it is short."""
    known = set.intersection(*(set(meta["vocabulary"]) for _, meta in networks.values()))
    text = "".join(character for character in util.read_text(path, "--text") if character in known)
    if len(text) < needed:
        util.fail(f"{path} has {len(text):,} characters that the networks know, and it takes {needed:,}")
    return text


def describe(text, networks):
    """Return what the file of a figure says of its networks, by name: the text that they read, epochs, horizons."""
    return {"text": text.name, "epochs": {name: meta["best_epoch"] for name, (_, meta) in networks.items()},
            "horizons": sorted({meta["settings"]["seq_size"] for _, meta in networks.values()})}


# Drawing ---------------------------------------------------------------------------------------------------------

def finish(axes, about, note):
    """Add to the axes what all have: a grid, and lines at the steps of back-propagation with a note at that height."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for horizon in about["horizons"]:
        axes.axvline(horizon, color="#888888", linewidth=0.8)
        if note is not None:
            axes.annotate("training horizon", (horizon, note), (4, 4 - 8 * note), xycoords=axes.get_xaxis_transform(),
                          textcoords="offset points", va="top" if note else "bottom", fontsize=9, color="#555555")


def lay_out(text):
    """Return the row and column of each character of a text, newlines included; longer lines go on in the next row."""
    row, column, places = 0, 0, []
    for character in text:
        places.append((row, column))
        column += 1
        if character == "\n" or column == COLUMNS:
            row, column = row + 1, 0
    return np.array(places)


def panels(figure, text, count):
    """Return axes for a text, one below the other, in a figure that is made as large as they take."""
    rows, columns = lay_out(text).max(axis=0) + 1
    figure.set_size_inches(max(0.11 * columns + 0.1, 5), (0.17 * rows + 0.35) * count)
    return figure.subplots(count, squeeze=False)[:, 0]


def draw_text(axes, text, values):
    """Draw a text on tints: values (N,) from -1 to 1, one a character; a newline is shown too."""
    places = lay_out(text)
    tints = np.full(places.max(axis=0) + 1, np.nan)
    tints[tuple(places.T)] = values
    axes.imshow(tints, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest", alpha=0.65)
    for (row, column), character in zip(places, text):
        axes.text(column, row, "↵" if character == "\n" else character, family="DejaVu Sans Mono", fontsize=10,
                  ha="center", va="center_baseline", color="#bbbbbb" if character == "\n" else "black",
                  parse_math=False)
    axes.set_axis_off()


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
        about = json.loads(lines.pop(0).removeprefix("# "))
        whole = lines.pop(0) == header and lines and content.endswith("\n")
        if not whole or not about.keys() >= {"text", "epochs", "horizons"}:
            raise ValueError
        for line in lines:
            key, *row = line.rsplit(",", numbers)
            curves.setdefault(key, []).append([float(value) for value in row])
            if key not in keys or len(row) != numbers or math.isnan(sum(curves[key][-1])):
                raise ValueError
        return about, {key: np.array(rows) for key, rows in curves.items()}
    except OSError as error:
        util.fail(f"cannot read {path}: {util.reason(error)}")
    except (ValueError, LookupError, AttributeError):
        util.fail(f"{path} is damaged; measure anew, without --redraw")
