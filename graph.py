"""Plots of the losses: the class Grapher draws a run while it trains, and `python graph.py` compares runs.

Everything is drawn from the CSV files that the runs write. Losses are cross-entropies in nats per character.
"""

import argparse
import contextlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

try:
    import numpy as np
except ImportError:
    raise SystemExit("NumPy is missing here. Type: . .venv/bin/activate (Windows: .venv\\Scripts\\activate)") from None

from util import COLUMNS, VERSION, reason, say, set_up_console, warn, write_file

COLORS = {"tanh": "#0072B2", "relu": "#D55E00", "stirnn": "#CC79A7", "nprnn": "#009E73"}  # Okabe, Ito: for all eyes
OTHER_COLORS = "#56B4E9", "#E69F00", "#000000", "#999999"
REFERENCE = Path(__file__).resolve().parent / "graphs"


def read_csv(path):
    """Return what a CSV file of a run says of itself (a dict), and its columns (a dict of arrays, NaN where empty).

    Raises OSError or, where it is not a whole file of ours, ValueError with the reason.
    """
    content = Path(path).read_text(encoding="utf-8", errors="replace")
    about, names, *lines = content.splitlines() if content.count("\n") > 1 else ("", "")
    try:
        about = json.loads(about.removeprefix("# "))
        if about["version"] != VERSION:
            raise ValueError
        about["model"], about["text"], about["sha256"], about["batch_size"], about["seq_size"]
    except (ValueError, TypeError, LookupError):
        about = None
    if about is None or tuple(names.split(",")) != COLUMNS:
        raise ValueError("it is not a file of losses that a run of this version wrote")
    rows = []
    for number, line in enumerate(lines, start=3):
        try:
            rows.append([float(value or "nan") for value in line.split(",")])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != len(COLUMNS) or (number == len(lines) + 2 and not content.endswith("\n")):
            raise ValueError(f"line {number} is damaged or cut off")
    return about, dict(zip(COLUMNS, np.array(rows).reshape(-1, len(COLUMNS)).T))


def curve(columns, name):
    """Return the epochs and losses of a column where it is not empty."""
    there = ~np.isnan(columns[name])
    return columns["epoch"][there], columns[name][there]


def validation(columns):
    """Return epochs and validation losses."""
    return curve(columns, "validation_loss")


def over_an_epoch(columns):
    """Return epochs and training losses, each the median of the epoch before: a spike or noise is not the trend.

    In the first epochs, where the loss falls fast, it is that of a quarter of what has passed.
    """
    epochs, losses = curve(columns, "train_loss")
    return epochs, np.array([np.median(losses[(epochs > end - min(1, end / 4)) & (epochs <= end)]) for end in epochs])


def updates_per_second(columns):
    """Return the speed of the median epoch, or of the whole run if it is shorter than two: a pause does not count."""
    rows = np.flatnonzero(columns["epoch"] % 1 == 0)
    if len(rows) < 3:
        rows = [0, -1]
    with np.errstate(all="ignore"):  # before the first update
        return np.median(np.diff(columns["iteration"][rows]) / np.diff(columns["seconds"][rows]))


def new_axes(figure, **words):
    """Return the axes of a figure of losses."""
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss (nats per character)", **words)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def fit(axes, curves):
    """Fit the axes to curves: neither the first steep fall nor a spike is to flatten all the rest."""
    end = max((xs[-1] for xs, _ in curves if len(xs)), default=0)
    parts = [ys[(xs >= 0.05 * end) & np.isfinite(ys)] for xs, ys in curves]
    if sum(map(len, parts)) < 5:  # a run that has just begun: the fall is all that there is to see
        parts = [ys[np.isfinite(ys)] for _, ys in curves]
    late = np.sort(np.concatenate(parts or [[]]))
    if len(late):
        bound = 3 * np.median(late)  # in a short run one row may be a spike
        late = late[late <= bound]
        latest = [ys[-1] for ys in parts if len(ys) and ys[-1] <= bound]  # in view, also where a loss rises
        highest = max([late[math.ceil(0.98 * (len(late) - 1))], *latest])
        margin = 0.04 * (highest - late[0]) or 0.5
        axes.set_ylim(late[0] - margin, highest + margin)
    axes.set_xlim(0, max(end, 0.1))


class Grapher:
    """Draws a run's losses from its CSV file into a PNG file beside it, and into a window, as training goes on.

    The window is a process of its own, which watches the same CSV file. So nothing that happens to it (closed,
    resized, its display gone) can hold training up, and it stays open when training has ended.
    """

    def __init__(self, csv, window=False, warn=warn, figure=None):
        from matplotlib.figure import Figure
        self.csv, self.window, self.warn = Path(csv), window, warn
        self.figure = figure or Figure((8, 5), layout="constrained")
        self.axes = new_axes(self.figure)
        self.noise, = self.axes.plot([], [], linewidth=0.8, alpha=0.3)  # the training loss as it is
        self.train, = self.axes.plot([], [], linewidth=1.6, zorder=3)  # and its trend
        self.validation, = self.axes.plot([], [], color="#222222", marker=".", linewidth=1.2, zorder=3)
        self.text = None  # the SHA-256 of the text whose references are drawn
        self.view = None  # the limits that were set last: if they are others now, the user has chosen a view
        self.due = 0.0

    def refresh(self):
        """Put what the CSV file says now into the lines, which stay the same objects, and fit the axes to them."""
        about, columns = read_csv(self.csv)
        if self.text != about["sha256"]:  # at first, and when a new run takes the place of one on another text
            for line in self.axes.lines[3:]:
                line.remove()
            for model, label, other in self.behind(about):
                self.axes.plot(*validation(other), color=COLORS[model], alpha=0.4, linewidth=1, label=label)
            self.text, self.view = about["sha256"], None
        for line in self.noise, self.train:
            line.set_color(COLORS.get(about["model"], OTHER_COLORS[0]))
        noise, trend, own = curve(columns, "train_loss"), over_an_epoch(columns), validation(columns)
        self.train.set_marker("." if len(trend[0]) == 1 else "")
        for line, data in (self.noise, noise), (self.train, trend), (self.validation, own):
            line.set_data(*data)
        for line, name, (_, losses) in (self.train, "train", noise), (self.validation, "validation", own):
            line.set_label(f"{name} {losses[-1]:.3f}" if len(losses) else f"{name} -")
        if self.view in (None, (self.axes.get_xlim(), self.axes.get_ylim())):
            fit(self.axes, (trend, own))
            self.view = self.axes.get_xlim(), self.axes.get_ylim()
            if self.figure.canvas.toolbar:  # its Home button comes back to this view, which follows the run
                self.figure.canvas.toolbar.update()
                self.figure.canvas.toolbar.push_current()
        self.axes.set_title(f"{about['model']} on {about['text']}, epoch {max(columns['epoch'], default=0):.1f}",
                            fontsize=11, parse_math=False)  # a file's name may have dollars
        self.axes.legend(loc="upper right", fontsize=8, frameon=False)

    def behind(self, about):
        """Return the validation curves to draw behind: the other models' own runs on this text, or references."""
        found = []
        for model in COLORS:
            own, reference = self.csv.with_name(f"{model}.csv"), REFERENCE / f"{model}.1.csv"
            for path in (reference,) if model == about["model"] else (own, reference):
                try:
                    other, columns = read_csv(path)
                except (OSError, ValueError):
                    continue
                if other["sha256"] == about["sha256"]:
                    found.append((model, model + " (reference)" * is_reference(path), columns))
                    break
        return found

    def update(self):
        """Draw, unless the last drawing was so recent that drawing would take 1% of the time or more."""
        if time.monotonic() >= self.due:
            self.draw()

    def draw(self):
        """Draw the PNG file now, and open the window if it is not open yet; if it can't be written, say so."""
        started = time.monotonic()
        target = self.csv.with_suffix(".png")
        try:
            self.refresh()
            picture = io.BytesIO()
            self.figure.savefig(picture, format="png", dpi=100)
            write_file(target, picture.getvalue())
            if self.window:
                self.window = False
                open_window(self.csv)
        except (OSError, ValueError) as error:
            self.warn(f"cannot draw {target}: {reason(error)}")
        self.due = time.monotonic() + 120 * (time.monotonic() - started)


def has_display():
    """Return whether there is a screen to open a window on."""
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def open_window(csv):
    """Start the process that shows a run in a window."""
    if has_display():
        alone = ({"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
                 else {"start_new_session": True})  # Ctrl-C is for the training, not for the window
        subprocess.Popen([sys.executable, __file__, "--watch", str(csv)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, **alone)


def no_window():
    """Return why there can be no window, or None. Matplotlib falls back to a backend without windows silently."""
    from matplotlib import pyplot
    with contextlib.suppress(ImportError):  # of a backend that MPLBACKEND asks for
        interactive = pyplot.figure().canvas.required_interactive_framework
        pyplot.close()
        if interactive:
            return None
        if os.environ.get("MPLBACKEND", "").lower() == pyplot.get_backend().lower():
            return f"MPLBACKEND={os.environ['MPLBACKEND']} has none"
    try:
        import tkinter
        tkinter.Tk().destroy()
    except ImportError:
        return "Python has no tkinter (Debian, Ubuntu: apt install python3-tk)"
    except tkinter.TclError as error:
        return str(error)
    return "Matplotlib finds no backend for one"


def watch(csv):
    """Show a run's losses in a window, which follows the CSV file until it is closed or a newer one takes its place."""
    from matplotlib import pyplot
    csv = Path(csv)
    try:
        read_csv(csv)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot watch {csv}: {reason(error)}")
    why = no_window()
    if why:
        sys.exit(f"No window: {why}. The plot is in {csv.with_suffix('.png')}")
    if os.name == "posix":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a vanishing display has to say belongs in no training log
    figure = pyplot.figure(f"{csv.stem}: losses", layout="constrained")
    grapher = Grapher(csv, figure=figure)
    newest = csv.with_suffix(".window")  # holds the number of the process whose window is the newest
    with contextlib.suppress(OSError):  # of a folder that can only be read
        write_file(newest, str(os.getpid()).encode())
    seen = 0

    def follow():
        nonlocal seen
        try:
            if newest.exists() and newest.read_text() != str(os.getpid()):
                pyplot.close()
            changed = os.stat(csv).st_mtime_ns
            if changed != seen and time.monotonic() >= grapher.due:
                started = time.monotonic()
                grapher.refresh()
                figure.canvas.draw()
                seen, grapher.due = changed, time.monotonic() + 30 * (time.monotonic() - started)  # 3% of the time
        except (OSError, ValueError):
            pass  # the folder is gone, or the file is on its way: the window shows what it has

    timer = figure.canvas.new_timer(interval=500)
    timer.add_callback(follow)
    timer.start()
    follow()
    pyplot.show()
    if newest.exists() and newest.read_text() == str(os.getpid()):
        newest.unlink()


# Comparison of runs ----------------------------------------------------------------------------------------------

def is_reference(path):
    """Return whether a CSV file is one that comes with the project."""
    return path.resolve().parent == REFERENCE


def read_groups(files, only_own_text):
    """Return the runs in files, those that differ in their seed only together, by label; and whether all could be read.

    A run is (path, about, columns). only_own_text leaves references out that are of another text than the first run.
    """
    runs, groups, labelled = [], {}, {}
    for path in files:
        try:
            about, columns = read_csv(path)
            if not len(validation(columns)[0]):
                raise ValueError("it has no losses yet")
            runs.append((path, about, columns))
        except (OSError, ValueError) as error:
            warn(f"{path} is left out: {reason(error)}")
    texts = {about["sha256"] for _, about, _ in runs}
    for path, about, columns in runs:
        reference = " (reference)" * (is_reference(path) and any(not is_reference(other) for other, *_ in runs))
        if only_own_text and reference and about["sha256"] != runs[0][1]["sha256"]:
            continue
        text = f" on {about['text']}" if len(texts) > 1 and not only_own_text else ""
        settings = json.dumps({name: value for name, value in about.items() if name != "seed"})
        groups.setdefault((f"{about['model']}{text}", reference, settings), []).append((path, about, columns))
    heads = [key[:2] for key in groups]
    for (name, reference, _), group in groups.items():
        if heads.count((name, reference)) > 1:
            name = str(group[0][0].with_suffix(""))
        times = f" ×{len(group)}" if len(group) > 1 else ""
        labelled[name + times + reference] = group
    return labelled, len(runs) == len(files)


def draw_curves(figure, title, groups, of):
    """Draw each group of runs as their mean, with a band from the lowest to the highest; of(columns) is a curve."""
    axes = new_axes(figure, title=title)
    spare, taken, own, references = itertools.cycle(OTHER_COLORS), set(), [], []
    for name, runs in groups.items():
        model, reference = runs[0][1]["model"], name.endswith("(reference)")
        known = model in COLORS and (model, reference) not in taken
        taken.add((model, reference))
        curves = [of(columns) for _, _, columns in runs]
        end = min(max(xs, default=0) for xs, _ in curves)
        epochs = curves[0][0][curves[0][0] <= end]
        losses = np.array([np.interp(epochs, xs, ys) if len(xs) else ys for xs, ys in curves])  # rows may be others
        (references if reference else own).append((epochs, losses.mean(axis=0)))
        color = COLORS[model] if known else next(spare)
        axes.plot(epochs, losses.mean(axis=0), label=name, color=color, linewidth=1 if reference else 1.5,
                  alpha=0.4 if reference else 1)
        axes.fill_between(epochs, losses.min(axis=0), losses.max(axis=0), color=color, alpha=0.15, linewidth=0)
    fit(axes, own or references)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)


def print_table(groups):
    """Print each group's means: losses (nats per character), of the final one half the range, perplexity and bits."""
    table = [["model", "epochs", "train", "validation", "best", "ppl", "bits", "minutes", "char/s"]]
    for name, runs in groups.items():
        figures = []
        for _, about, columns in runs:
            train, losses = over_an_epoch(columns)[1], validation(columns)[1]
            rate = updates_per_second(columns)
            figures.append([train[-1] if len(train) else math.nan, losses[-1], min(losses),
                            columns["iteration"][-1] / rate / 60, rate * about["batch_size"] * about["seq_size"]])
        train, final, best, minutes, speed = np.mean(figures, axis=0)
        half = f" ±{np.ptp([row[1] for row in figures]) / 2:.3f}" if len(runs) > 1 else ""
        table.append([name, f"{runs[0][2]['epoch'][-1]:.1f}", f"{train:.3f}", f"{final:.3f}{half}", f"{best:.3f}",
                      f"{math.exp(min(final, 700)):.4g}", f"{final / math.log(2):.3f}", f"{minutes:.1f}",
                      f"{speed:,.0f}"])
    widths = [max(map(len, column)) for column in zip(*table)]
    room = min(widths[0], 80 - sum(width + 1 for width in widths[1:]))
    for name, *words in table:
        if len(name) > room:  # a long name has a line of its own
            say(name)
            name = ""
        say(" ".join([name.ljust(room), *(word.rjust(width) for word, width in zip(words, widths[1:]))]))


def compare(files, out, window):
    """Draw train_all.png and val_all.png of runs into a folder, print their table, show them; return exit status."""
    own = [path for model in COLORS if (path := out / f"{model}.csv").exists()]
    references = [path for model in COLORS for path in sorted(REFERENCE.glob(f"{model}.[0-9].csv"))]
    groups, whole = read_groups(files or own + references, not files)
    if not groups:
        warn("There is nothing to draw: train a network first (python relu.py)")
        return 2
    if len({about["sha256"] for (_, about, _), *_ in groups.values()}) > 1:
        say("Runs of different texts: their losses can't be compared with each other")
    show = window and has_display() and not no_window()
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    for name, title, of in (("train_all", "Training loss (with dropout; median over an epoch)", over_an_epoch),
                            ("val_all", "Validation loss", validation)):
        figure = pyplot.figure(title, (8, 5), layout="constrained") if show else Figure((8, 5), layout="constrained")
        draw_curves(figure, title, groups, of)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        try:
            write_file(out / f"{name}.png", picture.getvalue())
        except OSError as error:
            warn(f"cannot write to {out}: {reason(error)}")
            return 2
    print_table(groups)
    say(f"Drawn: {out / 'train_all.png'}, {out / 'val_all.png'}")
    if show:
        say("Close the windows to end.")
        pyplot.show()
    return 0 if whole else 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare runs: draw their losses and print a table.")
    parser.add_argument("files", nargs="*", metavar="CSV", type=Path,
                        help="losses of runs (default: those in DIR, and the references in graphs/)")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR",
                        help="folder to draw into (default runs)")
    parser.add_argument("--no-window", action="store_true", help="only draw the files")
    parser.add_argument("--watch", metavar="CSV", help="show one run in a window that follows it")
    set_up_console()
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch)
    else:
        sys.exit(compare(arguments.files, arguments.out, not arguments.no_window))
