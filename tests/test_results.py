"""The published runs are whole, and the tables in the README say what they say, to the digits shown."""

import importlib
import math

import pytest

import util
from conftest import ROOT
from graph import present, read_csv

MODELS = ["tanh", "relu", "stirnn", "nprnn"]
UPDATES = 1024  # of an epoch of the original's split
README = (ROOT / "README.md").read_text(encoding="utf-8")


def published(name):
    return read_csv(ROOT / "graphs" / f"{name}.csv")


def table(title):
    """Return the README's table that has a column of that title: its rows as dicts, by the cell in the first column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
             for line in README.splitlines()]
    start = next(i for i, cells in enumerate(lines) if cells and title in cells)
    end = next(i for i in range(start, len(lines)) if lines[i] is None)
    return {cells[0]: dict(zip(lines[start], cells)) for cells in lines[start + 2:end]}


def assert_shown(row, measured):
    """Check that a row of a README table shows what was measured, rounded to its digits."""
    shown = {title: f"{value:,.{len(row[title].partition('.')[2])}f}" for title, value in measured.items()}
    assert {title: row[title] for title in measured} == shown


@pytest.mark.parametrize("model", MODELS)
def test_a_published_run_is_a_hundred_epochs_at_the_defaults(model):
    about, columns = published(model)
    script = importlib.import_module(model)
    assert {name: about[name] for name in util.SETTINGS} == {
        name: getattr(script, name.upper()) for name in util.SETTINGS}
    assert (about["model"], about["text"], about["epochs"]) == (model, "shakespear_train.txt", 100)
    assert (ROOT / "graphs" / f"{model}.csv").stat().st_size <= 200_000


@pytest.mark.parametrize("model", MODELS)
def test_a_published_run_is_whole(model):
    _, columns = published(model)
    iterations, epochs = columns["iteration"], columns["epoch"]
    assert iterations == sorted({*range(0, 100 * UPDATES + 1, 100), *range(0, 100 * UPDATES + 1, UPDATES)})
    assert all(math.isclose(epoch, iteration / UPDATES, rel_tol=1e-8) for iteration, epoch in zip(iterations, epochs))
    assert present(epochs, columns["validation_loss"])[0] == list(range(101))
    assert len(present(epochs, columns["train_loss"])[0]) == len(epochs) - 1  # none before the first update
    assert all(map(math.isfinite, present(epochs, columns["validation_loss"])[1] + columns["train_loss"][1:]))
    assert columns["seconds"] == sorted(columns["seconds"])


def test_the_published_runs_are_of_one_text():
    assert len({published(model)[0]["sha256"] for model in MODELS}) == 1


@pytest.mark.parametrize("model", MODELS)
def test_the_readme_shows_the_losses_of_the_published_runs(model):
    _, columns = published(model)
    train, validation = (present(columns["epoch"], columns[name])[1] for name in ("train_loss", "validation_loss"))
    assert_shown(table("final validation")[model], {
        "final training": train[-1], "best training": min(train), "final validation": validation[-1],
        "best validation": min(validation), "perplexity": math.exp(validation[-1]),
        "bits per character": validation[-1] / math.log(2)})


@pytest.mark.parametrize("model", MODELS)
def test_the_readme_shows_the_time_that_the_published_runs_took(model):
    about, columns = published(model)
    seconds, characters = columns["seconds"][-1], columns["iteration"][-1] * about["batch_size"] * about["seq_size"]
    assert_shown(table("minutes")[model], {"minutes": seconds / 60, "characters per second": characters / seconds})


@pytest.mark.parametrize("model", ["relu", "nprnn"])
def test_the_readme_shows_the_runs_on_nanogpts_split(model):
    about, columns = published(f"nanogpt_{model}")
    row = next(row for network, row in table("seconds").items() if f"`{model}.py`" in network)
    assert about["model"] == model and f"--epochs {about['epochs']}`" in row["network"]
    assert columns["epoch"][-1] == about["epochs"]
    assert_shown(row, {"validation loss": columns["validation_loss"][-1], "seconds": columns["seconds"][-1]})
