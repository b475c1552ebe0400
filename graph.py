"""Plots of the losses: the class Grapher draws a run while it trains, and `python graph.py` compares runs.

Everything is drawn from the CSV files that the runs write. Losses are cross-entropies in nats per character.
"""

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

try:
    import numpy as np
except ImportError:
    raise SystemExit("No NumPy. Type . .venv/bin/activate (Windows: .venv\\Scripts\\activate), see README.md") from None

from util import COLUMNS, VERSION, fail, option, reason, say, set_up_console, set_up_matplotlib, warn, write_file

COLORS = {"tanh": "#0072B2", "relu": "#D55E00", "stirnn": "#CC79A7", "nprnn": "#009E73"}  # Okabe, Ito: for all eyes
OTHER_COLORS = "#56B4E9", "#E69F00", "#000000", "#999999"
REFERENCE = Path(__file__).resolve().parent / "graphs"


def read_csv(path):
    """Return what a CSV file of a run says of itself (a dict), and its columns (a dict of arrays, NaN where empty).

    Raises OSError or, where it is not a whole file of ours, ValueError with the reason.
    """
    content = path.read_text(encoding="utf-8", errors="replace")
    try:
        about, names, *lines = content.splitlines(keepends=True)
        about = json.loads(about.removeprefix("# "))
        ours = about["version"] == VERSION and about.keys() >= {"model", "text", "sha256", "batch_size", "seq_size"}
    except (ValueError, TypeError, LookupError):
        ours = False
    if not ours or names != ",".join(COLUMNS) + "\n" or not lines:
        raise ValueError("it is not a file of losses that a run of this version wrote")
    rows = []
    for number, line in enumerate(lines, start=3):
        try:
            rows.append([float(value or "nan") for value in line.split(",")])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != len(COLUMNS) or not line.endswith("\n"):
            raise ValueError(f"line {number} is damaged or cut off")
    columns = dict(zip(COLUMNS, np.array(rows).T))
    if np.isnan([columns["validation_loss"][0], *columns["train_loss"][1:]]).any():
        raise ValueError("it lacks the validation loss before training, or a training loss later on")
    return about, columns


def is_reference(path):
    """Return whether a CSV file is one that comes with the project."""
    return path.resolve().parent == REFERENCE


def unusual(about):
    """Return the settings of a run that the project's run of this model does not have, as they are typed."""
    with contextlib.suppress(OSError, ValueError):
        usual, _ = read_csv(REFERENCE / f"{about['model']}.1.csv")
        names = usual.keys() - {"text", "sha256", "seed", "epochs"}
        other = [name for name in about if name in names and about[name] != usual[name]]
        return "".join(f" {option(name, about[name])}" for name in other)
    return ""


def validation(columns):
    """Return epochs and validation losses, of the rows that have one."""
    there = ~np.isnan(columns["validation_loss"])
    return columns["epoch"][there], columns["validation_loss"][there]


def over_an_epoch(columns):
    """Return epochs and training losses, each the median of the epoch before: a spike or noise is not the trend.

    In the first epochs, where the loss falls fast, it is that of a quarter of what has passed.
    """
    epochs, losses = columns["epoch"][1:], columns["train_loss"][1:]  # the first row is of before the first update
    return epochs, np.array([np.median(losses[(epochs > end - min(1, end / 4)) & (epochs <= end)]) for end in epochs])


def updates_per_second(columns):
    """Return the speed of the median epoch, or of the whole run if it is shorter than two: a pause does not count."""
    rows = np.flatnonzero(columns["epoch"] % 1 == 0)
    if len(rows) < 3:
        rows = [0, -1]
    return np.median(np.diff(columns["iteration"][rows]) / np.diff(columns["seconds"][rows]))


def new_axes(figure, **words):
    """Return the axes of a figure of losses."""
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss (nats per character)", **words)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_prop_cycle(color=OTHER_COLORS)
    return axes


def fit(axes, curves):
    """Fit the axes to curves: neither the first steep fall nor a spike is to flatten all the rest."""
    epochs, losses = np.hstack(curves)
    end = max(epochs.max(), 0.1)
    later = losses[epochs >= 0.1 * end]
    losses = later if len(later) >= 5 else losses  # of a run that has just begun the fall is all that there is to see
    losses = losses[losses <= 3 * np.median(losses)]
    margin = 0.04 * np.ptp(losses) or 0.5
    axes.set(xlim=(0, end), ylim=(losses.min() - margin, losses.max() + margin))


class Grapher:
    """Draws a run's losses from its CSV file into a PNG file beside it, and into a window, as training goes on.

    The window is a process of its own, which watches the same CSV file. So nothing that happens to it (closed,
    resized, its display gone) can hold training up, and it stays open when training has ended.
    """

    def __init__(self, csv, window=False, warn=warn, figure=None):
        from matplotlib.figure import Figure
        self.csv, self.window, self.warn = csv, window, warn
        self.figure = figure or Figure((8, 5), layout="constrained")
        self.axes = new_axes(self.figure)
        self.noise, = self.axes.plot([], [], linewidth=0.8, alpha=0.3)  # the training loss as it is
        self.train, = self.axes.plot([], [], linewidth=1.6, zorder=3)  # and its trend
        self.validation, = self.axes.plot([], [], color="#222222", marker=".", linewidth=1.2, zorder=3)
        self.text = None  # the SHA-256 of the run's text
        self.view = None  # the limits that were set last: if they are others now, the user has chosen a view
        self.due = 0.0

    def refresh(self):
        """Put what the CSV file says now into the lines, which stay the same objects, and fit the axes to them."""
        about, columns = read_csv(self.csv)
        self.draw_behind(about)
        if self.text != about["sha256"]:  # at first, and when a new run takes the place of one on another text
            self.text, self.view = about["sha256"], None
        epochs, losses = columns["epoch"][1:], columns["train_loss"][1:]
        trend, own, color = over_an_epoch(columns), validation(columns), COLORS.get(about["model"], OTHER_COLORS[0])
        self.noise.set(data=(epochs, losses), color=color)
        self.train.set(data=trend, color=color, marker="." if len(epochs) == 1 else "",
                       label=f"train {losses[-1]:#.4g}" if len(losses) else "train -")
        self.validation.set(data=own, label=f"validation {own[1][-1]:.3f}")
        if self.view in (None, self.axes.axis()):
            fit(self.axes, (trend, own, (epochs[-1:], losses[-1:])))  # the latest, which runs ahead of its trend
            self.view = self.axes.axis()
            if self.figure.canvas.toolbar:  # its Home button comes back to this view, which follows the run
                self.figure.canvas.toolbar.update()
                self.figure.canvas.toolbar.push_current()
        self.axes.set_title(f"{about['model']} on {about['text']}, epoch {columns['epoch'][-1]:.1f}",
                            fontsize=11, parse_math=False)  # a file's name may have dollars
        self.axes.legend(fontsize=8, frameon=False)

    def draw_behind(self, about):
        """Draw, to compare, of each model another run in this folder on this text, or else the reference."""
        for line in self.axes.lines[3:]:
            line.remove()
        for model, color in COLORS.items():
            for path in self.csv.with_name(f"{model}.csv"), REFERENCE / f"{model}.1.csv":
                with contextlib.suppress(OSError, ValueError):
                    other, columns = read_csv(path)
                    own = path.resolve() == self.csv.resolve()
                    if not own and other["sha256"] == about["sha256"] and len(validation(columns)[0]) > 1:
                        name = model + unusual(other) + (" (reference)" if is_reference(path) else "")
                        self.axes.plot(*validation(columns), color=color, alpha=0.4, linewidth=1, label=name,
                                       linestyle="--")
                        break

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
        except Exception as error:  # whatever a user's settings of Matplotlib come to, training goes on
            self.warn(f"cannot draw {target}: {reason(error)}")
            started -= 1  # try again in 100 s: what fails at once would be told after every update
        self.due = time.monotonic() + 100 * (time.monotonic() - started)


def open_window(csv):
    """Start the process that shows a run in a window, where there is a screen."""
    if sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        # in a process group of its own: Ctrl-C is for the training, not for the window
        subprocess.Popen([sys.executable, __file__, "--watch", csv], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, start_new_session=True,
                         creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))


def figure_in_window(title):
    """Return a figure in a window of that title, or None: Matplotlib falls back to one without a window silently."""
    from matplotlib import pyplot
    with contextlib.suppress(ImportError):  # of a backend that MPLBACKEND asks for
        figure = pyplot.figure(title, (8, 5), layout="constrained")
        if figure.canvas.required_interactive_framework:
            return figure
    return None


def watch(csv):
    """Show a run's losses in a window, which follows the CSV file until it is closed or a newer one takes its place."""
    from matplotlib import pyplot
    try:
        read_csv(csv)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot watch {csv}: {reason(error)}")
    figure = figure_in_window(f"{csv.stem}: losses")
    if figure is None:
        with_these = [f"{name}={os.environ[name]}" for name in ("MPLBACKEND", "DISPLAY") if os.environ.get(name)]
        if not find_spec("_tkinter"):
            with_these.append("a Python that has no tkinter (Debian, Ubuntu: apt install python3-tk)")
        sys.exit(f"No window: Matplotlib opens none with {', '.join(with_these) or 'its own settings, or no display'}. "
                 f"The plot is in {csv.with_suffix('.png')}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a vanishing display has to say belongs in no training log
    grapher = Grapher(csv, figure=figure)
    newest = csv.with_suffix(".window")  # holds the number of the process whose window is the newest
    with contextlib.suppress(OSError):  # of a folder that can only be read
        write_file(newest, str(os.getpid()).encode())
    number = newest.read_text() if newest.exists() else ""  # still another's, if it could not be written
    seen = 0

    def follow():
        nonlocal seen
        with contextlib.suppress(OSError, ValueError):  # without the folder or the file, the window shows what it has
            if newest.exists() and newest.read_text() != number:
                pyplot.close()
            changed = csv.stat().st_mtime_ns
            if changed != seen and time.monotonic() >= grapher.due:
                started = time.monotonic()
                grapher.refresh()
                figure.canvas.draw()
                seen, grapher.due = changed, time.monotonic() + 30 * (time.monotonic() - started)  # 3% of the time

    timer = figure.canvas.new_timer(interval=500)
    timer.add_callback(follow)
    timer.start()
    follow()
    pyplot.show()
    if newest.exists() and newest.read_text() == str(os.getpid()):
        newest.unlink()


# Comparison of runs ----------------------------------------------------------------------------------------------

def in_groups(runs):
    """Return the runs by label, those that differ in their seed only together."""
    texts, references = {about["sha256"] for _, about, _ in runs}, {is_reference(path) for path, *_ in runs}
    groups, labelled = {}, {}
    for path, about, columns in runs:
        text = f" on {about['text']}" if len(texts) > 1 else ""
        reference = " (reference)" if len(references) > 1 and is_reference(path) else ""
        alike = groups.setdefault((about["model"] + unusual(about), text, reference), {})
        alike.setdefault(json.dumps({**about, "seed": None}), []).append((path, about, columns))
    for (name, text, reference), alike in groups.items():
        for group in alike.values():
            shown = name if len(alike) == 1 else str(group[0][0]).removesuffix(".csv")
            times = f" ×{len(group)}" if len(group) > 1 else ""
            labelled[shown + text + times + reference] = group
    return labelled


def draw_curves(figure, title, groups, of):
    """Draw each group of runs as their mean, with a band from the lowest to the highest; of(columns) is a curve."""
    axes = new_axes(figure, title=title)
    unused = {True: dict(COLORS), False: dict(COLORS)}
    for name, runs in groups.items():
        (path, about, _), *_ = runs
        model, reference = about["model"], is_reference(path) and name.endswith("(reference)")
        curves = [of(columns) for _, _, columns in runs]
        end = min(xs[-1] for xs, _ in curves)
        epochs = curves[0][0][curves[0][0] <= end]
        losses = np.array([np.interp(epochs, xs, ys) for xs, ys in curves])  # rows may be at other epochs
        line, = axes.plot(epochs, losses.mean(axis=0), label=name, color=unused[reference].pop(model, None),
                          linewidth=1 if reference else 1.5, alpha=0.4 if reference else 1)
        axes.fill_between(epochs, losses.min(axis=0), losses.max(axis=0), color=line.get_color(), alpha=0.15,
                          linewidth=0)
    fit(axes, [line.get_data() for line in axes.lines if line.get_alpha() == 1])  # own runs, if there are any
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)


def print_table(groups):
    """Print each group's means: losses (nats per character), of the final one half the range, perplexity and bits."""
    say("model                 epochs train  validation  best   ppl  bits minutes  char/s")
    for name, runs in groups.items():
        figures, end = [], min(validation(columns)[0][-1] for _, _, columns in runs)  # all are measured there
        for _, about, columns in runs:
            columns = {title: column[columns["epoch"] <= end] for title, column in columns.items()}
            train, losses, rate = over_an_epoch(columns)[1], validation(columns)[1], updates_per_second(columns)
            figures.append([train[-1], losses[-1], min(losses), columns["iteration"][-1] / rate / 60,
                            rate * about["batch_size"] * about["seq_size"]])
        train, final, best, minutes, speed = np.mean(figures, axis=0)
        half = f"±{np.ptp([row[1] for row in figures]) / 2:.3f}" if len(runs) > 1 else ""
        row = (f" {end:6.1f} {train:#.4g} {f'{final:.3f}{half}':>11} {best:.3f} "
               f"{math.exp(min(final, 700)):#5.4g} {final / math.log(2):.3f} {minutes:7.1f} {speed:7,.0f}")
        room = 80 - len(row)
        say(f"{name:{room}}{row}" if len(name) <= room else f"{name}\n{row:>80}")  # a long name has its own line


def compare(files, out, window):
    """Draw train_all.png and val_all.png of runs into a folder, print their table, show them; return exit status."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    own = [path for model in COLORS if (path := out / f"{model}.csv").exists()]
    references = [path for model in COLORS for path in sorted(REFERENCE.glob(f"{model}.[0-9].csv"))]
    runs, status = [], 0
    for path in {path.resolve(): path for path in files or own + references}.values():
        try:
            about, columns = read_csv(path)
            if len(validation(columns)[0]) < 2:
                raise ValueError("it has not been validated in training yet")
            runs.append((path, about, columns))
        except (OSError, ValueError) as error:
            warn(f"{path} is left out: {reason(error)}")
            status = 2
    texts = {about["sha256"] for path, about, _ in runs if not is_reference(path)}
    if texts and not files:  # of the references those on a text of one's own runs
        runs = [run for run in runs if run[1]["sha256"] in texts]
    if not runs:
        fail("There is nothing to draw; the losses of python relu.py are in runs/relu.csv")
    if len({about["sha256"] for _, about, _ in runs}) > 1:
        say("Runs of different texts: their losses can't be compared with each other")
    groups = in_groups(runs)
    for name, title, of in (("train_all", "Training loss (with dropout; median over an epoch)", over_an_epoch),
                            ("val_all", "Validation loss", validation)):
        shown = figure_in_window(title) if window else None
        figure = shown or Figure((8, 5), layout="constrained")
        draw_curves(figure, title, groups, of)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        try:
            write_file(out / f"{name}.png", picture.getvalue())
        except OSError as error:
            fail(f"cannot write to {out}: {reason(error)}")
    print_table(groups)
    say(f"Drawn: {out / 'train_all.png'}, {out / 'val_all.png'}")
    if shown:
        say("Close the windows to end.")
        pyplot.show()
    return status or int(sys.stdout is None)  # say() takes it away when it cannot print


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare runs: draw their losses and print a table.")
    parser.add_argument("files", nargs="*", metavar="CSV", type=Path, help="runs (default: those in DIR and graphs/)")
    parser.add_argument("--out", default="runs", metavar="DIR", type=Path, help="folder to draw into (default runs)")
    parser.add_argument("--no-window", action="store_true", help="only draw the files")
    parser.add_argument("--watch", metavar="CSV", type=Path, help="show one run in a window that follows it")
    parser.error = lambda message: fail(f"{message}; --help lists all options")
    set_up_console()
    arguments = parser.parse_args()
    set_up_matplotlib()
    if arguments.watch:
        watch(arguments.watch)
    else:
        sys.exit(compare(arguments.files, arguments.out, not arguments.no_window))
