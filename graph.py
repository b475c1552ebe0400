"""Plots of the losses: the class Grapher draws a run while it trains, and `python graph.py` compares runs.

Everything is drawn from the CSV files that the runs write. Losses are cross-entropies in nats per character.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = "iteration", "epoch", "train_loss", "validation_loss", "seconds", "batch_loss", "penalty"
COLORS = {"tanh": "#0072B2", "relu": "#D55E00", "stirnn": "#CC79A7", "nprnn": "#009E73"}  # Okabe, Ito: for all eyes
OTHER_COLORS = "#56B4E9", "#E69F00", "#000000", "#999999"
REFERENCE = Path(__file__).resolve().parent / "graphs"


def write_file(path, write, durable=False):
    """Replace a file as a whole by what write(file) writes, or leave it as it was; raises OSError."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_csv(path, about, rows):
    """Write the CSV file of a run: what it says of itself (a dict), and its rows; raises OSError.

    The file is replaced as a whole at every row, so that it is never cut and survives the removal of its folder.
    """
    lines = [f"# {json.dumps(about)}", ",".join(COLUMNS)]
    lines += [",".join("" if math.isnan(value) else f"{value:.9g}" for value in row) for row in rows]
    write_file(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def read_csv(path):
    """Return what a CSV file of a run says of itself (a dict), and its columns (a dict of lists, NaN where empty).

    Raises OSError or, where it is not a whole file of ours, ValueError with the reason.
    """
    content = Path(path).read_text(encoding="utf-8")
    lines = content.splitlines()
    if not lines:
        raise ValueError("it is empty")
    try:
        about = json.loads(lines[0].removeprefix("# "))
        about["model"], about["text"], about["sha256"]
        whole = tuple(lines[1].split(",")) == COLUMNS
    except (ValueError, TypeError, LookupError):
        whole = False
    if not whole:
        raise ValueError("it is not a file of losses that a run of this project wrote")
    rows = []
    for number, line in enumerate(lines[2:], start=3):
        try:
            rows.append([float(value) if value else math.nan for value in line.split(",")])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != len(COLUMNS) or (number == len(lines) and not content.endswith("\n")):
            raise ValueError(f"line {number} is damaged or cut off")
    return about, {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}


def present(xs, ys):
    """Return the points whose y is not NaN, as two lists."""
    points = [(x, y) for x, y in zip(xs, ys) if not math.isnan(y)]
    return [x for x, _ in points], [y for _, y in points]


def fit_losses(axes, late):
    """Fit the axis of losses to the late ones: neither the first steep fall nor a spike is to flatten all the rest."""
    if late:
        lowest, highest = min(late), sorted(late)[int(0.99 * len(late))]
        margin = 0.04 * (highest - lowest) + 0.01
        axes.set_ylim(lowest - margin, highest + margin)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def other_curves(path, about):
    """Return the latest known curves of the other models on the same text: [(model, columns)]."""
    curves = []
    for model in COLORS:
        for candidate in (Path(path).parent / f"{model}.csv", REFERENCE / f"{model}.csv"):
            try:
                other, columns = read_csv(candidate)
            except (OSError, ValueError):
                continue
            if model != about["model"] and (other["model"], other["sha256"]) == (model, about["sha256"]):
                curves.append((model, columns))
                break
    return curves


class Grapher:
    """Draws a run's losses from its CSV file into a PNG file beside it, and into a window, as training goes on.

    The window is a process of its own, which watches the same CSV file. So nothing that happens to it (closed,
    resized, its display gone) can hold training up, and it stays open when training has ended.
    """

    def __init__(self, csv, window=False, figure=None):
        from matplotlib.figure import Figure
        self.csv = Path(csv)
        self.figure = figure or Figure()
        self.figure.set_size_inches(8, 5)
        self.axes = self.figure.add_subplot(xlabel="epoch", ylabel="loss (nats per character)")
        try:
            about, _ = read_csv(csv)
        except (OSError, ValueError):  # the disk is full, say: draw() will tell
            about = {"model": self.csv.stem, "sha256": None}
        color = COLORS.get(about["model"], OTHER_COLORS[0])
        for model, columns in other_curves(csv, about):
            self.axes.plot(*present(columns["epoch"], columns["validation_loss"]), color=COLORS[model], alpha=0.35,
                           linewidth=1, label=f"{model}, validation")
        self.raw, = self.axes.plot([], [], color=color, alpha=0.25, linewidth=0.8, label="training, one batch")
        self.train, = self.axes.plot([], [], color=color, linewidth=1.6, label="training, mean of 100")
        self.validation, = self.axes.plot([], [], color="#222222", marker=".", linewidth=1.2, label="validation")
        self.axes.legend(loc="upper right", frameon=False)
        self.due = 0.0
        if window and (sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
            alone = ({"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
                     else {"start_new_session": True})  # Ctrl-C is for the training, not for the window
            subprocess.Popen([sys.executable, __file__, "--watch", str(self.csv)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, **alone)

    def refresh(self):
        """Put what the CSV file says now into the lines, which stay the same objects, and fit the axes to them."""
        about, columns = read_csv(self.csv)
        epochs = columns["epoch"]
        self.raw.set_data(*present(epochs, columns["batch_loss"]))
        self.train.set_data(*present(epochs, columns["train_loss"]))
        self.validation.set_data(*present(epochs, columns["validation_loss"]))
        if not epochs:
            return
        lines = self.train, self.validation
        fit_losses(self.axes, [y for line in lines for x, y in line.get_xydata() if x >= 0.05 * epochs[-1]])
        self.axes.set_xlim(0, max(epochs[-1], 0.1))
        latest = [f"{name} {line.get_ydata()[-1]:.3f}" for name, line in zip(("training", "validation"), lines)
                  if len(line.get_ydata())]
        self.axes.set_title(f"{about['model']} on {about['text']}, epoch {epochs[-1]:.1f}: {', '.join(latest)}",
                            fontsize=11, parse_math=False)  # a file's name may have dollars

    def update(self):
        """Draw, unless the last drawing was so recent that drawing would take 1% of the time or more."""
        if time.monotonic() >= self.due:
            self.draw()

    def draw(self):
        """Draw the PNG file now; if it can't be written, say so and go on."""
        started = time.monotonic()
        target = self.csv.with_suffix(".png")
        try:
            self.refresh()
            write_file(target, lambda file: self.figure.savefig(file, format="png", dpi=100))
        except (OSError, ValueError) as error:
            print(f"\ncannot draw {target}: {error}; training goes on", file=sys.stderr)
        self.due = time.monotonic() + 120 * (time.monotonic() - started)


def watch(csv):
    """Show a run's losses in a window, which follows the CSV file until it is closed."""
    import matplotlib
    from matplotlib import pyplot
    figure = pyplot.figure(f"{Path(csv).stem}: losses")
    if matplotlib.get_backend().lower() == "agg":
        sys.exit("No window: Python has no tkinter (Debian, Ubuntu: apt install python3-tk). The plot is in "
                 f"{Path(csv).with_suffix('.png')}")
    if os.name == "posix":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a vanishing display has to say belongs in no training log
    grapher = Grapher(csv, figure=figure)
    seen = 0

    def follow():
        nonlocal seen
        try:
            changed = os.stat(csv).st_mtime_ns
            if changed != seen and time.monotonic() >= grapher.due:
                started = time.monotonic()
                grapher.refresh()
                figure.canvas.draw()
                seen, grapher.due = changed, time.monotonic() + 120 * (time.monotonic() - started)
        except (OSError, ValueError):
            pass  # the folder is gone, or the file is on its way: the window shows what it has

    timer = figure.canvas.new_timer(interval=500)
    timer.add_callback(follow)
    timer.start()
    follow()
    pyplot.show()


def find_files(out):
    """Return the CSV files to compare: the user's own runs, and where a model has none, the project's reference."""
    candidates = [(out / f"{model}.csv", REFERENCE / f"{model}.csv") for model in COLORS]
    return [own if own.exists() else reference for own, reference in candidates if own.exists() or reference.exists()]


def read_curves(files):
    """Return the runs in files that can be drawn, as (path, about, columns), and whether all could."""
    curves = []
    for path in files:
        try:
            about, columns = read_csv(path)
            if not present(columns["epoch"], columns["validation_loss"])[0]:
                raise ValueError("it has no losses yet")
            curves.append((path, about, columns))
        except (OSError, ValueError) as error:
            print(f"{path} is left out: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
    return curves, len(curves) == len(files)


def draw_curves(path, title, column, labels, curves):
    """Draw one column of all runs into a PNG file."""
    from matplotlib.figure import Figure
    figure = Figure((8, 5))
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss (nats per character)", title=title)
    models, spare, late = [about["model"] for _, about, _ in curves], itertools.cycle(OTHER_COLORS), []
    for label, (_, about, columns) in zip(labels, curves):
        known = about["model"] in COLORS and models.count(about["model"]) == 1
        xs, ys = present(columns["epoch"], columns[column])
        axes.plot(xs, ys, label=label, linewidth=1.4, color=COLORS[about["model"]] if known else next(spare))
        late += [y for x, y in zip(xs, ys) if x >= 0.05 * xs[-1]]
    fit_losses(axes, late)
    axes.set_xlim(left=0)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    figure.savefig(path, dpi=120)


def print_table(labels, curves):
    """Print the runs' figures: losses in nats per character, perplexity and bits of the final validation loss."""
    table = [["model", "epochs", "train", "validation", "best", "perplexity", "bits/char", "minutes", "char/s", "from"]]
    for label, (path, about, columns) in zip(labels, curves):
        _, losses = present(columns["epoch"], columns["validation_loss"])
        _, train_losses = present(columns["epoch"], columns["train_loss"])
        seconds, characters = columns["seconds"][-1], columns["iteration"][-1] * about["batch_size"] * about["seq_size"]
        table.append([label, f"{columns['epoch'][-1]:.1f}", f"{train_losses[-1]:.3f}" if train_losses else "-",
                      f"{losses[-1]:.3f}", f"{min(losses):.3f}", f"{math.exp(min(losses[-1], 700)):.4g}",
                      f"{losses[-1] / math.log(2):.3f}", f"{seconds / 60:.1f}",
                      f"{characters / seconds:,.0f}" if seconds else "-", str(path)])
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        words = [word.ljust(width) if title in ("model", "from") else word.rjust(width)
                 for title, word, width in zip(table[0], row, widths)]
        print("  ".join(words).rstrip())


def compare(files, out):
    """Draw train_all.png and val_all.png of the runs in files into a folder, print their table; return exit status."""
    curves, whole = read_curves(files or find_files(out))
    if not files:  # references are there to be compared with own runs, not to be mixed with those of another text
        own = {about["sha256"] for path, about, _ in curves if path.parent != REFERENCE}
        for path, about, _ in [curve for curve in curves if own and curve[1]["sha256"] not in own]:
            print(f"{path} is left out: it is of another text, {about['text']}")
        curves = [curve for curve in curves if not own or curve[1]["sha256"] in own]
    if not curves:
        print("There is nothing to draw: train a network first (python relu.py)", file=sys.stderr)
        return 2
    models = [about["model"] for _, about, _ in curves]
    labels = [model if models.count(model) == 1 else str(path.with_suffix(""))
              for model, (path, _, _) in zip(models, curves)]
    if len({about["sha256"] for _, about, _ in curves}) > 1:
        print("Runs of different texts: their losses can't be compared with each other")
        labels = [f"{label} ({about['text']})" for label, (_, about, _) in zip(labels, curves)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw_curves(out / "train_all.png", "Training loss (with dropout, mean of 100 updates)", "train_loss", labels,
                    curves)
        draw_curves(out / "val_all.png", "Validation loss", "validation_loss", labels, curves)
    except OSError as error:
        print(f"cannot write to {out}: {error.strerror or error}", file=sys.stderr)
        return 2
    print_table(labels, curves)
    print(f"Drawn: {out / 'train_all.png'}, {out / 'val_all.png'}")
    return 0 if whole else 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare runs: draw their losses and print a table.")
    parser.add_argument("files", nargs="*", metavar="CSV", type=Path,
                        help="losses of runs (default: those in DIR, and graphs/ for models that have not been run)")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR",
                        help="folder to draw into (default runs)")
    parser.add_argument("--watch", metavar="CSV", help="show one run in a window that follows it")
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch)
    else:
        sys.exit(compare(arguments.files, arguments.out))
