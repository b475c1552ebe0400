"""Make the project's own curves and networks from runs: for each model the same runs, each with a seed of its own.

    python relu.py --seed 1 --out seed1       and so on: the four models, seeds 1, 2 and 3
    python -m graphs.publish seed1 seed2 seed3

writes graphs/MODEL.1.csv and so on, the losses, with fewer rows where a file would be large; graphs/MODEL.1.txt, the
samples of the first run; and data/MODEL.npz, the best network of the run whose final validation loss is the middle
one, its weights in float16.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np

import util
from graph import COLORS, REFERENCE, read_csv, validation

LARGEST = 60 * 1024  # bytes of a file of losses


def thin(content):
    """Return the content of a file of losses with every second row, third, ... alone; rows with a validation stay."""
    about, names, *rows = content.splitlines(keepends=True)
    column = util.COLUMNS.index("validation_loss")
    for every in range(1, len(rows) + 1):
        kept = "".join(row for i, row in enumerate(rows) if i % every == 0 or row.split(",")[column])
        if len(about) + len(names) + len(kept) <= LARGEST:
            break
    return about + names + kept


def network(path, model):
    """Return the content of a file with the best network of a checkpoint alone, in float16."""
    meta, arrays = util.load_checkpoint(path, model)
    meta = {name: meta[name] for name in ("version", "model", "vocabulary", "settings", "text_name", "sha256",
                                          "best_loss", "best_epoch")}
    content = io.BytesIO()
    weights = {f"best/{name}": array.astype(np.float16) for name, array in util.part(arrays, "best").items()}
    np.savez_compressed(content, meta=json.dumps(meta), **weights)
    return content.getvalue()


def publish(folders):
    """Write the project's curves and networks from the runs in folders, or nothing if one of them is damaged."""
    if not any((folder / f"{model}.csv").exists() for folder in folders for model in COLORS):
        util.fail("give the folders of the runs to publish")
    files = {}  # their content by path
    for model in COLORS:
        runs = []  # (final loss, path)
        for number, folder in enumerate(folders, start=1):
            path = folder / f"{model}.csv"
            if not path.exists():
                continue
            try:
                about, columns = read_csv(path)
                samples = path.with_suffix(".txt").read_bytes()
            except (OSError, ValueError) as error:
                util.fail(f"nothing is published: {getattr(error, 'filename', path)}: {util.reason(error)}")
            if columns["epoch"][-1] < about["epochs"]:
                util.say(f"{path} has not ended yet")
                continue
            runs.append((validation(columns)[1][-1], path))
            files[REFERENCE / f"{model}.{number}.csv"] = thin(path.read_text(encoding="utf-8")).encode()
            if number == 1:
                files[REFERENCE / f"{model}.1.txt"] = samples
        if runs:
            _, middle = sorted(runs)[(len(runs) - 1) // 2]
            files[util.DATA / f"{model}.npz"] = network(middle.with_suffix(".npz"), model)
            losses = ", ".join(f"{loss:.4f}" for loss, _ in runs)
            util.say(f"{model}: {losses}; data/{model}.npz is from {middle.parent}")
    for path, content in files.items():
        util.write_file(path, content)


if __name__ == "__main__":
    publish([Path(word) for word in sys.argv[1:]])
