"""The published runs are whole and of the scripts' own settings, and the README's table says what they say."""

import importlib
import math
import re

import numpy as np
import pytest

import stirnn
import util
from graph import REFERENCE, over_an_epoch, read_csv, validation
from helpers import ROOT

MODELS = sorted({path.name.split(".")[0] for path in REFERENCE.glob("*.[0-9].csv")})
UPDATES = 1024  # of an epoch of the original's split
README, FIGURES = ((folder / "README.md").read_text(encoding="utf-8") for folder in (ROOT, REFERENCE))
each_model = pytest.mark.parametrize("model", MODELS)


def published(model):
    """Return the published runs of a model: [(about, columns)]."""
    return [read_csv(path) for path in sorted(REFERENCE.glob(f"{model}.*.csv"))]


def table(title, readme=README):
    """Return the README's table that has a column of that title: its rows as dicts, by the cell in the first column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
             for line in readme.splitlines()]
    start = next(i for i, cells in enumerate(lines) if cells and title in cells)
    end = next(i for i in range(start, len(lines)) if lines[i] is None)
    return {cells[0]: dict(zip(lines[start], cells)) for cells in lines[start + 2:end]}


@each_model
def test_the_published_runs_are_three_with_the_settings_of_the_script_and_a_seed_each(model):
    runs, settings = published(model), importlib.import_module(model).SETTINGS
    for about, _ in runs:
        changed = {name for name, (value, *_) in settings.items() if about[name] != value}
        assert changed <= {"epochs", "seed"}
        assert about["epochs"] * UPDATES * settings["warm_up_share"][0] > about["warm_up"]
        assert (about["model"], about["text"]) == (model, "shakespear_train.txt")
    assert [about["seed"] for about, _ in runs] == [1, 2, 3]


def test_the_published_runs_are_of_one_text_and_one_length():
    assert len({(about["sha256"], about["epochs"]) for model in MODELS for about, _ in published(model)}) == 1


@each_model
def test_a_published_run_is_whole(model):
    for about, columns in published(model):
        iterations, epochs = columns["iteration"], columns["epoch"]
        assert set(iterations) >= set(range(0, about["epochs"] * UPDATES + 1, UPDATES))
        assert np.allclose(epochs, iterations / UPDATES, rtol=1e-8) and (np.diff(iterations) > 0).all()
        assert set(range(about["epochs"] + 1)) <= set(validation(columns)[0])
        assert np.isfinite(validation(columns)[1]).all() and np.isfinite(columns["train_loss"][1:]).all()
        assert (np.diff(columns["seconds"]) >= 0).all()


@each_model
def test_the_readmes_table_shows_the_means_of_the_published_runs(model):
    figures = np.array([[validation(columns)[1][-1], over_an_epoch(columns)[1][-1]] for _, columns in published(model)])
    means, half = figures.mean(axis=0), np.ptp(figures[:, 0]) / 2
    measured = dict(zip(("validation", "training"), means))
    measured |= {"perplexity": math.exp(means[0]), "bits per character": means[0] / math.log(2)}
    expected = {title: f"{value:.3f}" for title, value in measured.items()}
    expected["validation"] += f" ± {half:.3f}"
    row = table("bits per character")[f"`{model}.py`"]
    assert {title: row[title] for title in expected} == expected


@each_model
def test_each_published_run_is_lowest_at_its_end(model):
    for _, columns in published(model):
        epochs, losses = validation(columns)
        assert epochs[np.argmin(losses)] == epochs[-1]


def test_the_readme_ranks_a_network_behind_those_only_whose_runs_all_end_below_all_of_its_own():
    finals = {model: [validation(columns)[1][-1] for _, columns in published(model)] for model in MODELS}
    ranks = {f"`{model}.py`": str(1 + sum(max(other) < min(own) for other in finals.values()))
             for model, own in finals.items()}
    assert {script: row["rank"] for script, row in table("rank").items()} == ranks


def test_the_readmes_row_beside_nanogpt_is_that_of_its_three_runs():
    runs = [read_csv(path) for path in sorted(REFERENCE.glob("nanogpt-*.csv"))]
    lowest = [min(validation(columns)[1]) for _, columns in runs]
    about, columns = runs[0]
    assert [run for run, _ in runs] == [{**about, "seed": seed} for seed in (2, 3, 4)]
    shape = about["hidden_size"], about["depth"]
    weights = sum(array.size for array in stirnn.init_weights(65, *shape, np.random.default_rng(1)).values())
    command = "stirnn.py --hidden-size {hidden_size} --dropout {dropout} --epochs {epochs}".format(**about)
    changed = {name for name, (value, *_) in stirnn.SETTINGS.items() if about[name] != value}
    assert changed == {"hidden_size", "dropout", "epochs", "seed"}
    assert {columns["epoch"][-1] for _, columns in runs} == {about["epochs"]}
    row = table("machine", FIGURES)[f"`{command}`"]
    assert row["validation"] == f"{np.mean(lowest):.3f} ± {np.ptp(lowest) / 2:.3f}"
    assert row["weights"] == f"{weights / 1e6:.2f} million"
    assert row["minutes"] == f"{columns['seconds'][-1] / 60:.0f}" and columns["seconds"][-1] < 3600
    found = re.search(r"`(stirnn.*)`\s+comes\s+to \*\*(.*)\*\*\s+in\s+(\d+)", README)
    assert found.groups() == (command, row["validation"], row["minutes"])


def test_the_readme_shows_what_the_published_run_wrote_at_six_moments():
    samples = {}
    for paragraph in (REFERENCE / "relu.1.txt").read_text(encoding="utf-8").split("--- iteration ")[1:]:
        about, line, *_ = paragraph.split("\n")
        iteration, loss = about.split(", validation loss ")
        samples[f"{int(iteration.replace(',', '')) / UPDATES:.2g}"] = (loss, line)
    rows = table("it writes")
    assert len(rows) == 6
    for epoch, row in rows.items():
        loss, line = samples[f"{float(epoch):.2g}"]
        assert row["validation loss"] == loss and line.startswith(row["it writes"].strip("`"))
        assert len(row["it writes"]) > min(40, len(line))


@each_model
def test_a_network_that_comes_with_the_project_is_that_of_the_middle_run_and_small(model):
    path = util.DATA / f"{model}.npz"
    weights, meta = util.load_network(model, util.DATA)
    runs = sorted((validation(columns)[1][-1], min(validation(columns)[1]), about["seed"])
                  for about, columns in published(model))
    assert (pytest.approx(meta["best_loss"], abs=1e-6), meta["settings"]["seed"]) == runs[1][1:]
    assert path.stat().st_size < 800_000
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}  # to compute with
    with np.load(path, allow_pickle=False) as file:
        assert {file[name].dtype for name in file.files} - {file["meta"].dtype} == {np.dtype(np.float16)}


@each_model
def test_a_network_that_comes_with_the_project_has_the_loss_on_the_play_that_the_readme_of_the_figures_tells(model):
    script = importlib.import_module(model)
    weights, meta = util.load_network(model, util.DATA)
    text = "".join(c for c in util.read_text(util.PLAY) if c in meta["vocabulary"])
    loss = script.evaluate_loss(weights, util.encode(text, meta["vocabulary"]))
    assert table("on the play", FIGURES)[f"`data/{model}.npz`"]["on the play"] == f"{loss:.3f}"


@each_model
@pytest.mark.skipif(not (util.DATA / "shakespear_val.txt").exists(), reason="needs Shakespeare, not downloaded here")
def test_sixteen_bits_a_weight_cost_at_most_a_thousandth_of_a_nat(model):
    script = importlib.import_module(model)
    weights, meta = util.load_network(model, util.DATA)
    text = util.encode(util.read_text(util.DATA / "shakespear_val.txt"), meta["vocabulary"])
    assert abs(script.evaluate_loss(weights, text) - meta["best_loss"]) <= 0.001
