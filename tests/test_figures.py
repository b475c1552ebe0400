"""The figures of graphs/: their numbers, which networks they show, and their files; what graphs/publish.py makes."""

import io
import json
import runpy
import shutil
import sys
import zipfile
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure

import helpers
import relu
import stirnn
import util
from graph import COLORS
from graphs import common, neurons, norms, publish, reach

FIGURES = {"reach": (reach.HEADER, reach.KEYS, reach.measure, reach.draw),
           "reach_text": (reach.TEXT_HEADER, list(COLORS), reach.measure_on_text, reach.draw_on_text),
           "norms": (norms.HEADER, norms.KEYS, norms.measure, norms.draw),
           "neurons": (neurons.HEADER, neurons.KEYS, neurons.measure, neurons.draw)}
PUBLISHED = [name for name in FIGURES if (helpers.ROOT / "graphs" / f"{name}.csv").exists()]
STREAMS = {"stabilised": [[1, 2.0, 2.0, 2.0, 4.2], [9876, 2.0, 3.0, 5.0, 2.1]],
           "plain": [[1, 2.0, 2.0, 2.0, 4.2], [500, 2.0, 4.0, 1e9, 3.1], [10100, 7.0, np.inf, np.inf, np.inf]]}
KNOWN = "the cat sat on the mat " * 2000


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """A folder with a network of relu.py and one of stirnn.py; others in more/, in plain/ one without stabiliser."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    words = [*helpers.TINY, "--epochs", 1, "--train", text, "--quiet", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        for script in common.MODELS.values():
            patch.setattr(script, "Grapher", mock.MagicMock())  # their own plots take long
            helpers.train(script, *words, folder if script in (relu, stirnn) else folder / "more")
        helpers.train(stirnn, *words, folder / "plain", "--beta", 0)
    return folder


@pytest.fixture
def project(runs, tmp_path, monkeypatch):
    """A project whose own networks are these, of epoch 0.5, in its folder data; the folder graphs has the figures."""
    (tmp_path / "graphs").mkdir()
    for model in common.MODELS:
        path = shutil.copy(runs / ("" if model in ("relu", "stirnn") else "more") / f"{model}.npz", tmp_path)
        helpers.change(path, best_epoch=0.5)
        util.write_file(tmp_path / "data" / f"{model}.npz", publish.network(path, model))
    for name in PUBLISHED:
        shutil.copy(helpers.ROOT / "graphs" / f"{name}.csv", tmp_path / "graphs")
    monkeypatch.setattr(util, "DATA", tmp_path / "data")
    monkeypatch.setattr(common, "GRAPHS", tmp_path / "graphs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch):
    """A function that does in this process what the command line of a figure asks for."""
    def main(name, *words):
        script = name.removesuffix("_text")
        if name == "reach_text":
            words = (*words, "--on-text")
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, words)])
        runpy.run_path(str(helpers.ROOT / "graphs" / f"{script}.py"), run_name="__main__")

    monkeypatch.setattr(util.signal, "signal", mock.Mock())  # Ctrl-C shall still end the tests
    return main


def measure(name, runs, text=util.PLAY, plain=None, model=None, unit=None, at=reach.AT):
    return FIGURES[name][2](SimpleNamespace(runs=runs, text=text, plain=plain, model=model, unit=unit, at=at))


def read(name, path):
    return common.read_csv(path, *FIGURES[name][:2])


def drawing(name, about, curves):
    """Return the figure of these curves."""
    figure = Figure((10, 4), layout="constrained")
    FIGURES[name][3](figure, about, {key: np.array(rows) for key, rows in curves.items()})
    figure.draw_without_rendering()
    return figure


def drawn(name, about, curves):
    """Return the words of the legend in a drawing of the curves, which must have room for it, and the lines."""
    figure = drawing(name, about, curves)
    legend, = figure.legends
    assert figure.bbox.x0 < legend.get_window_extent().x0 < legend.get_window_extent().x1 < figure.bbox.x1
    return [word.get_text() for word in legend.get_texts()], [line for axes in figure.axes for line in axes.get_lines()]


def tints(axes):
    """Return the characters that are drawn on tints, each with its tint (from -1 to 1), row by row."""
    image, = axes.images
    assert image.get_clim() == (-1, 1) and axes.bbox.height / len(image.get_array()) > 14  # pixels: room for a row
    places = [(text.get_position(), text.get_text()) for text in axes.texts]
    return [(character, float(image.get_array()[row, column]))
            for (column, row), character in sorted(places, key=lambda place: place[0][::-1])]


# Networks and what they read -------------------------------------------------------------------------------------

def test_the_networks_are_those_that_come_with_the_project_or_those_in_a_folder_of_ones_own(project, runs):
    shutil.copytree(runs, project / "runs")
    found = common.load_networks(None)
    assert {name: meta["best_epoch"] for name, (_, meta) in found.items()} == dict.fromkeys(common.MODELS, 0.5)
    own = common.load_networks(runs)
    assert list(own) == ["relu", "stirnn"]
    _, arrays = util.load_checkpoint(runs / "relu.npz", "relu")
    assert (own["relu"][0]["Why"] == arrays["best/Why"]).all() and own["relu"][1]["best_epoch"] != 0.5
    assert util.command("relu", project / "empty") in helpers.refusal(common.load_networks, project / "empty")


def test_the_text_read_is_what_all_networks_know(tmp_path):
    (tmp_path / "text.txt").write_text("a☃bcab", encoding="utf-8")
    networks = {"relu": ({}, {"vocabulary": "abx"}), "tanh": ({}, {"vocabulary": "xbca"})}
    assert common.read_known(tmp_path / "text.txt", networks, 4) == "abab"


@pytest.mark.parametrize("name, needed", [
    ("reach", 16 * 500 + 1), ("reach_text", 151), ("norms", 10_101), ("neurons", 2 * 20_000 + 2 * 250)])
def test_a_text_that_is_too_short_is_refused(name, needed, runs, tmp_path):
    (tmp_path / "short.txt").write_text("☃" + KNOWN[:needed - 1], encoding="utf-8")
    line = helpers.refusal(measure, name, runs, tmp_path / "short.txt")
    assert f"short.txt has {needed - 1:,} characters" in line and f"takes {needed:,}" in line


def test_every_character_has_its_own_tint_a_long_line_goes_on_in_the_next_row_and_newlines_are_shown(monkeypatch):
    monkeypatch.setattr(common, "COLUMNS", 4)
    text, axes = "abcdef\ng$h^_$\n\n", Figure().subplots()
    places = [(row, column) for row, length in enumerate([4, 3, 4, 3, 1]) for column in range(length)]
    assert list(map(tuple, common.lay_out(text))) == places
    values = np.linspace(-1, 1, len(text))
    common.draw_text(axes, text, values)
    assert tints(axes) == list(zip(text.replace("\n", "↵"), values))


def test_in_a_drawn_text_no_character_overlaps_another():
    figure, text = Figure(dpi=100), "W" * 70 + "\nWW\n" * 10
    for axes in common.panels(figure, text, 4):
        common.draw_text(axes, text, np.zeros(len(text)))
    figure.draw_without_rendering()
    left, bottom, right, top = np.array([drawn.get_window_extent().extents
                                         for axes in figure.axes for drawn in axes.texts]).T
    assert np.diff(sorted(set(left.round(3)))).min() > (right - left).max()
    assert np.diff(sorted(set(((bottom + top) / 2).round(3)))).min() > (top - bottom).max() - 2  # of a W no descender


# The reach of the gradient ---------------------------------------------------------------------------------------

def nudged_loss(activation, weights, depth, characters, target, layer, step, nudge):
    """Return the loss of the last step, where h[layer](step), of layer -1 the input, is changed by nudge."""
    hidden_size, vocabulary_size = weights["Why"].shape
    h = np.zeros((depth, hidden_size))
    for t, character in enumerate(characters, start=1):
        x = np.eye(vocabulary_size)[character]
        if (-1, t) == (layer, step):
            x += nudge
        for d in range(depth):
            h[d] = activation(x @ weights[f"Wxh{d}"] + h[d] @ weights[f"Whh{d}"] + weights[f"bh{d}"])
            if (d, t) == (layer, step):
                h[d] += nudge
            x = h[d]
    logits = x @ weights["Why"] + weights["by"]
    return np.log(np.exp(logits).sum()) - logits[target]


@pytest.mark.parametrize("model", common.MODELS.values(), ids=common.MODELS)
def test_reach_is_the_norm_of_the_gradient_that_central_differences_give(model):
    rng, D, H, V, T, epsilon = np.random.default_rng(12), 3, 7, 5, 7, 1e-6
    weights = model.init_weights(V, H, D, rng, np.float64)
    for name in weights:  # in all of them, zeros included: what derive() leaves out would otherwise not show
        weights[name] += rng.normal(0, 0.2, weights[name].shape)
    characters, targets = rng.integers(V, size=(T, 2)), np.array([3, 1])
    activation = np.tanh if model.MODEL == "tanh" else lambda z: np.maximum(z, 0)
    expected = np.zeros((D + 1, T, 2))  # the last row is of the inputs

    def loss(b, *where):
        return nudged_loss(activation, weights, D, characters[:, b], targets[b], *where)

    for d, k, b in np.ndindex(D + 1, T, 2):
        plus, minus = ([loss(b, d if d < D else -1, T - k, sign * epsilon * unit) for unit in np.eye(H if d < D else V)]
                       for sign in (1, -1))
        expected[d, k, b] = np.linalg.norm(np.subtract(plus, minus) / (2 * epsilon))
    assert expected.min() > 1e-6  # the comparison is of gradients, not of zeros
    norms, input_norms, losses = reach.derive(model, weights, characters, targets, T - 1)
    np.testing.assert_allclose([*norms, input_norms], expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(losses, [loss(b, 0, 0, 0) for b in range(2)])


def test_a_geometric_mean_leaves_exact_zeros_out_and_is_zero_where_there_is_nothing_else():
    got = reach.geometric_mean(np.array([[1e-200, 1e-100], [0, 5], [0, 0]]), axis=1)
    np.testing.assert_allclose(got, [1e-150, 5, 0])


def test_a_curve_of_reach_is_the_geometric_mean_over_networks_and_times_of_what_is_finite_and_not_zero(monkeypatch):
    monkeypatch.setattr(reach, "TIMES", (6, 8))
    monkeypatch.setattr(reach, "LAGS", 3)
    rng = np.random.default_rng(2)
    networks, (inputs, targets) = [relu.init_weights(5, 16, 2, rng) for _ in range(3)], rng.integers(5, size=(2, 8, 4))
    expected = np.concatenate([reach.derive(relu, weights, inputs[:t], targets[t - 1], 3)[0]
                               for weights in networks for t in (6, 8)], axis=-1).prod(axis=-1) ** (1 / 24)
    rows = np.array(reach.average_reach(relu, networks, inputs, targets))
    assert rows[:, :2].tolist() == [[d, k] for d in range(2) for k in range(4)]
    np.testing.assert_allclose(rows[:, 2], expected.ravel())
    networks[0]["Wxh1"][:] = np.nan  # as of a state that has overflowed
    with np.errstate(all="ignore"):
        assert reach.average_reach(relu, networks, inputs, targets) == []
    networks[1]["Whh0"][:], networks[1]["Whh1"][:] = 0, 0
    assert [row[:2] for row in reach.average_reach(relu, networks[1:2], inputs, targets)] == [(0, 0), (1, 0)]


def test_reach_is_measured_of_the_best_networks_saved_and_of_new_ones_of_their_sizes(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "SEEDS", 2)
    path = shutil.copy(runs / "relu.npz", tmp_path)
    _, arrays = util.load_checkpoint(runs / "relu.npz", "relu")
    helpers.change(path, **{"best_epoch": 0.75, "weights/Why": np.zeros_like})
    about, curves = measure("reach", tmp_path)
    assert about == {"text": "play.txt", "epochs": {"relu": 0.75}, "horizons": [20]}
    assert list(curves) == ["relu,initial", "relu,trained"]
    networks = common.load_networks(tmp_path)
    vocabulary = networks["relu"][1]["vocabulary"]
    text = common.read_known(util.PLAY, networks, 1)
    batch = util.batch(util.encode(text, vocabulary), 0, reach.SEQUENCES, max(reach.TIMES))
    new = [relu.init_weights(len(vocabulary), 16, 2, np.random.default_rng(seed)) for seed in (1, 2)]
    assert curves["relu,initial"] == reach.average_reach(relu, new, *batch)
    assert curves["relu,trained"] == reach.average_reach(relu, [util.part(arrays, "best")], *batch)


def test_each_network_of_reach_reads_all_that_it_knows_of_the_text(runs, tmp_path, monkeypatch):
    read, plain = {}, common.read_known

    def read_known(path, networks, needed):
        read[tuple(networks)] = plain(path, networks, needed)
        return read[tuple(networks)]
    monkeypatch.setattr(common, "read_known", read_known)
    monkeypatch.setattr(reach, "SEEDS", 1)
    measure("reach", runs)
    assert list(read) == [("relu",), ("stirnn",)]


def test_the_reach_figure_names_each_network_with_its_epoch_and_draws_all_its_layers():
    faded = {"tanh": 0.9, "relu": 0.8, "stirnn": 0.7, "nprnn": 0.6}  # of its norm stays so much from step to step
    curves = {f"{model},{stage}": [[d, k, faded[model] ** k] for d in range(2) for k in range(9)]
              for model in faded for stage in ("initial", "trained")}
    epochs = {"tanh": 98, "relu": 17.75, "stirnn": 19.25, "nprnn": 18.75}
    names, lines = drawn("reach", {"epochs": epochs, "horizons": [50]}, curves)
    assert names == [f"{model}, epoch {epochs[model]}" for model in faded] + ["at initialisation", "after training"]
    for model in faded:
        norms_drawn = [line.get_ydata().tolist() for line in lines if line.get_color() == COLORS[model]]
        assert norms_drawn == [[faded[model] ** k for k in range(9)]] * 4
        assert [line.get_linestyle() for line in lines if line.get_color() == COLORS[model]] == ["--", "-"] * 2
    assert [line.get_xdata() for line in lines if len(line.get_xdata()) == 2] == [[50, 50]] * 2


@pytest.mark.parametrize("at, predicted, shown", [(100, 100, 30), (10, 10, 10), (10**9, -1, 30)])
def test_a_prediction_on_a_text_rests_on_the_characters_before_it(at, predicted, shown, runs, monkeypatch):
    monkeypatch.setattr(reach, "BEFORE", 30)
    monkeypatch.setattr(reach, "MEMORY", 40)
    networks = common.load_networks(runs)
    text = common.read_known(util.PLAY, networks, 1)
    predicted %= len(text)
    about, curves = measure("reach_text", runs, at=at)
    assert (about["text"], about["horizons"], list(about["epochs"])) == ("play.txt", [20], list(networks))
    assert about["passage"] + about["next"] == text[predicted - shown:predicted + 1]
    assert list(curves) == list(networks)
    for name, (weights, meta) in networks.items():
        read = util.encode(text[max(0, predicted - 70):predicted], meta["vocabulary"])[:, None]
        target = util.encode(text[predicted], meta["vocabulary"])
        _, expected, loss = reach.derive(common.MODELS[name], weights, read, target, shown - 1)
        assert curves[name] == list(enumerate(expected[:, 0])) and expected.max() > 0
        assert about["probabilities"][name] == pytest.approx(np.exp(-loss[0]))


def test_the_drawing_of_a_prediction_tints_each_character_before_it_by_its_norm():
    about = {"passage": "It is 1\n2", "next": "\n"}
    norms_drawn = {"tanh": [1, 0, 0, 0, 0, 0, 0, 0, 0], "relu": [5, 4.5, 0.3, 0.2, 0, 0, 0, 0, 0],
                   "stirnn": [1, 1, 1, 1, 1, 1, 1, 1, 1], "nprnn": [1e-2, 1, 10**-1.5, 1e-3, 1e-4, 0, 0, 0, 0]}
    about["probabilities"] = {"tanh": 0.5, "relu": 0.123, "stirnn": 1, "nprnn": 0}
    curves = {name: list(enumerate(values)) for name, values in norms_drawn.items()}
    axes = drawing("reach_text", about, curves).axes
    assert [panel.get_title("left") for panel in axes] == [
        f"{name}: p(↵) = {p}; 90% of the gradient on {count} characters"
        for name, p, count in [("tanh", "0.50", 1), ("relu", "0.12", 2), ("stirnn", "1.00", 9), ("nprnn", "0.00", 2)]]
    assert tints(axes[0]) == [*zip("It is 1↵", [0] * 8), ("2", 1)]
    np.testing.assert_allclose([tint for _, tint in tints(axes[3])], [0] * 6 + [0.5, 1, 1 / 3], atol=1e-9)
    axes = drawing("reach_text", {**about, "next": " "}, curves).axes
    assert "p(a space)" in axes[0].get_title("left")


def test_a_prediction_on_which_no_character_has_any_influence_is_drawn_without_tints():
    about = {"passage": "It is", "next": "a", "probabilities": {"relu": 0.5}}
    with np.errstate(all="raise"):
        panel, = drawing("reach_text", about, {"relu": [[k, 0] for k in range(5)]}).axes
    assert tints(panel) == [(character, 0) for character in "It is"]


# Units that tell something ---------------------------------------------------------------------------------------

def test_the_answers_to_all_questions_are_those_found_by_hand():
    text = "AB:\nHi, Bo:\n\nC:\nno"
    by_hand = {"name": "111100000000011100", "word": "010001000100010001", "line": "001000000011001001",
               "capital": "100100010000100000", "column": "012301234567001201"}
    found = neurons.answers(text)
    assert {name: found[name].astype(int).tolist() for name in by_hand} == {
        name: [int(digit) for digit in digits] for name, digits in by_hand.items()}
    assert found["blank"].tolist() == [*range(13), *range(5)]
    assert [name for name in neurons.TITLES if found[name].dtype == bool] == ["name", "word", "line", "capital"]


def test_how_well_units_tell_is_the_area_under_the_curve_or_the_correlation():
    rng = np.random.default_rng(5)
    values, answer, number = rng.integers(6, size=(70, 4)).astype(float), rng.random(70) < 0.3, rng.integers(9, size=70)
    values[:, 0] += answer
    values[:, 3] = 0.1
    areas = [np.mean([(yes > no) + (yes == no) / 2 for yes in unit[answer] for no in unit[~answer]])
             for unit in values.T]
    np.testing.assert_allclose(neurons.tells(values, answer), areas)
    assert areas[3] == 0.5 != areas[2]
    correlations = [np.corrcoef(unit, number)[0, 1] for unit in values.T[:3]] + [0]
    np.testing.assert_allclose(neurons.tells(values, number), correlations, atol=1e-6)
    values[:, 3] = 0
    assert neurons.tells(values, number)[3] == 0
    for same in False, True:
        assert neurons.tells(values, np.full(70, same)).tolist() == [0.5] * 4


def test_the_unit_of_a_question_is_chosen_on_the_first_part_and_measured_on_the_second_alone(monkeypatch):
    monkeypatch.setattr(neurons, "PART", 200)
    rng, second = np.random.default_rng(6), slice(200, 400)
    states = {name: rng.normal(size=(500, 2, 6)) for name in ("tanh", "relu", "stirnn")}
    truth = {name: rng.random(500) < 0.5 for name in ("name", "word", "line", "capital")}
    truth |= {name: rng.integers(80, size=500) for name in ("column", "blank")}
    for i, answer in enumerate(truth.values()):
        states["tanh"][:, 0, i] = answer + rng.normal(0, answer.std(), 500)  # a worse one
        states["relu"][:, 1, i] = answer
        states["relu"][second, 1, i] *= -1
        states["stirnn"][second, 1, i] = answer[second]
    assert neurons.choose(states, truth) == {
        name: {"model": "relu", "layer": 1, "unit": i, "measure": "AUC" if i < 4 else "correlation",
               "score": pytest.approx(0 if i < 4 else -1)} for i, name in enumerate(neurons.TITLES)}


@pytest.mark.parametrize("text, expected", [
    ("abc\n" * 9 + "a\n\nb\n\n" + "abc\n" * 9, "abc\n" * 3), ("x" * 38 + "\n\n" + "a" * 9 + "\n" * 9, "a" * 9 + "\n"),
    ("abc\n" * 8 + "ab", "abc\n" * 3), ("ab" * 20, "ab" * 5),  # too short for parts; without lines
    ("x" * 40 + "abc\n" * 20, "abc\n" * 3), ("x" * 40 + "a" * 20 + "\n\nb\n", "a" * 20 + "\n")])  # without a speech
def test_the_passage_is_of_whole_lines_from_the_first_speech_behind_both_parts_on(text, expected, monkeypatch):
    monkeypatch.setattr(neurons, "PART", 20)
    monkeypatch.setattr(neurons, "PASSAGE", 10)
    assert text[neurons.passage(text)] == expected


def test_the_units_drawn_are_the_chosen_ones_on_the_passage_each_of_its_own_network(runs, text, monkeypatch):
    monkeypatch.setattr(neurons, "PART", 1000)
    monkeypatch.setattr(neurons, "PASSAGE", 100)
    networks = common.load_networks(runs)
    known, states = common.read_known(text, networks, 1), {}
    shown = neurons.passage(known)
    for name, (weights, meta) in networks.items():
        inputs = util.one_hot(util.encode(known[:shown.stop], meta["vocabulary"])[:, None], len(meta["vocabulary"]))
        hs = relu.forward(weights, inputs, np.zeros((2, 1, 16), np.float32))[2]
        states[name] = np.stack([hs[:, t, 0] for t in range(1, shown.stop + 1)])
    about, curves = measure("neurons", runs, text)
    assert about["passage"] == known[shown] and list(about["epochs"]) == ["relu", "stirnn"]
    assert about["units"] == neurons.choose(states, neurons.answers(known))
    assert list(curves) == list(neurons.TITLES)
    for question, unit in about["units"].items():
        _, alone = measure("neurons", runs, text, model=unit["model"], unit=f"{unit['layer']}:{unit['unit']}")
        assert curves[question] == alone["unit"]
    assert len({unit["model"] for unit in about["units"].values()}) > 1


def test_a_unit_of_ones_own_choice_is_drawn_and_one_that_is_always_off_too(runs, text, monkeypatch):
    monkeypatch.setattr(neurons, "PART", 1000)
    monkeypatch.setattr(neurons, "PASSAGE", 400)
    states, steps = np.zeros((6000, 2, 16)), np.arange(6000)
    states[:, 1, 3] = np.where(steps % 300 == 0, -9, steps % 7 - 3)  # one in 300 is off the scale
    monkeypatch.setattr(neurons, "activations", lambda model, weights, vocabulary, text: states[:len(text)])
    for unit, scale in ("1:3", 3), ("0:3", 1):
        about, curves = measure("neurons", runs, text, model="stirnn", unit=unit)
        assert about["units"] == {"unit": {"model": "stirnn", "layer": int(unit[0]), "unit": 3}}
        assert list(about["epochs"]) == ["stirnn"]
        start = util.read_text(text).index(about["passage"])
        expected = np.clip(states[start:start + len(about["passage"]), int(unit[0]), 3] / scale, -1, 1)
        assert start > 2000 and curves["unit"] == list(enumerate(expected))


@pytest.mark.parametrize("model, unit, words", [
    (None, "1:2", "go together"), ("relu", None, "go together"), ("tanh", "0:0", "there are relu, stirnn"),
    *[("relu", unit, "layers 0 to 1 with units 0 to 15") for unit in ("2:0", "0:16", "x", "1", "-1:0", "0:1:2", ":")]])
def test_a_unit_that_does_not_exist_is_refused(model, unit, words, runs, text):
    assert words in helpers.refusal(lambda: measure("neurons", runs, text, model=model, unit=unit))


def test_a_unit_that_tells_too_little_is_called_no_detector_in_its_title():
    unit = {"model": "relu", "layer": 2, "unit": 117}
    scores = {"name": 0.9, "word": 0.899, "column": 0.7, "blank": 0.69}
    units = {name: {**unit, "score": score, "measure": "AUC" if score > 0.8 else "correlation"}
             for name, score in scores.items()} | {"unit": unit}
    curves = {name: [[0, 0.5], [1, -1], [2, i / 10]] for i, name in enumerate(units)}
    axes = drawing("neurons", {"passage": "ab\n", "units": units}, curves).axes
    assert [panel.get_title("left") for panel in axes] == [
        "In a speaker's name: relu, layer 2, unit 117, AUC 0.90",
        "A word ends here (no detector): relu, layer 2, unit 117, AUC 0.90",
        "Position in the line: relu, layer 2, unit 117, correlation 0.70",
        "Distance from a blank line (no detector): relu, layer 2, unit 117, correlation 0.69",
        "relu, layer 2, unit 117"]
    for i, panel in enumerate(axes):
        assert tints(panel) == [("a", 0.5), ("b", -1), ("↵", i / 10)]


# The norms of the states -----------------------------------------------------------------------------------------

def counting_network(growth):
    """Return a network with h[0](t) = t and h[1](t) = growth h[1](t-1) + 1 in each of 4 units, whatever it reads."""
    weights = stirnn.init_weights(3, 4, 2, np.random.default_rng(0))
    weights["Wxh0"][:], weights["Wxh1"][:], weights["bh1"][:] = 1, 0, 1
    weights["Whh0"], weights["Whh1"] = (factor * np.eye(4, dtype=np.float32) for factor in (1, growth))
    return weights


def test_a_stream_is_read_from_its_first_character_to_its_last_with_one_state():
    rng = np.random.default_rng(3)
    weights, indices = counting_network(0.5), rng.integers(3, size=251)
    sizes, nats = norms.read_stream(weights, indices[:-1], indices[1:])
    np.testing.assert_allclose(sizes, 2 * np.arange(1, 251))
    logits, _, _ = stirnn.forward(weights, util.one_hot(indices[:-1, None], 3), np.zeros((2, 1, 4), np.float32))
    assert nats.std() > 0.1
    np.testing.assert_allclose(nats, -stirnn.log_softmax(logits)[np.arange(250), indices[1:]], rtol=1e-4)


def test_a_stream_once_overflowed_stays_so_and_its_norms_are_those_of_the_largest_layer():
    indices = np.zeros(250, int)
    sizes, nats = norms.read_stream(counting_network(10), indices, indices)
    np.testing.assert_allclose(sizes[:3], [2, 22, 222])
    assert np.isfinite(sizes[:38]).all() and np.isinf(sizes[40:]).all()
    assert np.isfinite(nats[:30]).all() and np.isinf(nats[40:]).all()


def test_a_row_of_norms_stands_for_the_steps_since_the_one_before_and_its_loss_for_the_mean_of_a_hundred_or_more():
    sizes, start = np.arange(1, 10_101) ** 2.0, 0  # whose mean is not their median
    nats = 1e9 - 2 * sizes
    for end, *row in norms.thin(sizes, nats):
        part, window = sizes[start:end], nats[max(0, min(start, end - norms.WINDOW)):end]
        assert row == pytest.approx([part.min(), part.mean(), part.max(), window.mean()])
        start = end
    assert norms.thin(sizes, nats)[0][0] == 1 and end == 10_100


def test_norms_are_measured_of_the_best_networks_with_and_without_the_stabiliser(runs, project, capsys):
    folders, own = {"stabilised": ".", "plain": "plain"}, shutil.copytree(runs, project / "own")
    networks = common.load_networks(runs)
    known = networks["stirnn"][1]["vocabulary"]
    for epoch, folder in zip((0.75, 0.25), folders.values()):
        helpers.change(own / folder / "stirnn.npz",
                       **{"best_epoch": epoch, "weights/by": np.full(len(known), 9, np.float32)})
    capsys.readouterr()
    about, curves = measure("norms", own, plain=own / "plain")
    assert "Beware" not in capsys.readouterr().err
    assert about == {"text": "play.txt", "epochs": {"stabilised": 0.75, "plain": 0.25}, "horizons": [20]}
    assert list(curves) == ["stabilised", "plain"]
    indices = util.encode(common.read_known(util.PLAY, networks, 1)[:10_101], known)
    for name, folder in folders.items():
        _, arrays = util.load_checkpoint(runs / folder / "stirnn.npz", "stirnn")
        assert curves[name] == norms.thin(*norms.read_stream(util.part(arrays, "best"), indices[:-1], indices[1:]))


@pytest.mark.parametrize("own", [False, True])
def test_without_a_network_without_the_stabiliser_its_published_norms_are_shown(own, runs, project, capsys):
    about = {"text": "other.txt" if own else "play.txt", "epochs": {"stabilised": 9, "plain": 7.5}, "horizons": [100]}
    common.write_csv(project / "graphs" / "norms.csv", norms.HEADER, about, STREAMS)
    about, curves = measure("norms", runs if own else None)
    epoch = util.load_checkpoint(runs / "stirnn.npz", "stirnn")[0]["best_epoch"] if own else 0.5
    assert about == {"text": "play.txt", "epochs": {"stabilised": epoch, "plain": 7.5}, "horizons": [20]}
    assert curves.keys() == STREAMS.keys() and curves["plain"].tolist() == STREAMS["plain"]
    assert curves["stabilised"][-1][0] == norms.STEPS
    errors = capsys.readouterr().err
    assert ("without the stabiliser has read other.txt, not play.txt" in errors) == own
    assert f"without the stabiliser is that of epoch 7.5, the other one of epoch {epoch:.4g}\n" in errors


def test_of_the_published_text_nothing_is_told_where_both_networks_have_read_another(runs, project, capsys):
    (project / "other.txt").write_text(KNOWN)
    measure("norms", runs, project / "other.txt", plain=runs / "plain")
    assert "Beware" not in capsys.readouterr().err


def test_networks_that_are_mixed_up_or_not_there_are_refused(runs, tmp_path):
    for own, plain in (runs, runs), (runs / "plain", runs / "plain"), (runs / "plain", runs):
        assert "--beta 0" in helpers.refusal(lambda own=own, plain=plain: measure("norms", own, plain=plain))
    assert f"no saved network {tmp_path}" in helpers.refusal(lambda: measure("norms", runs, plain=tmp_path))


def test_networks_that_differ_in_more_than_the_stabiliser_are_told_of(runs, tmp_path, capsys):
    path = shutil.copy(runs / "stirnn.npz", tmp_path)
    settings = util.load_checkpoint(path, "stirnn")[0]["settings"]
    helpers.change(path, settings={**settings, "dropout": 0.2, "seed": 7}, sha256="other")
    measure("norms", tmp_path, plain=runs / "plain")
    assert "dropout, seed, text" in capsys.readouterr().err


def test_the_norms_figure_names_both_networks_with_their_epochs_and_where_they_leave_the_axes():
    about = {"text": "$5 ^^ $6.txt", "epochs": {"stabilised": 19, "plain": 3.5}, "horizons": [100]}  # no mathematics
    names, lines = drawn("norms", about, STREAMS)
    assert names[0] == "with the stabiliser, epoch 19"
    assert names[1].startswith("without (--beta 0), epoch 3.5; off the axes by step 500, ")
    drawn_values = [list(line.get_ydata()) for line in lines]
    for means_or_losses in [2, 3], [2, 4, norms.TOP_NORM], [4.2, 2.1], [4.2, 3.1, norms.TOP_LOSS]:
        assert means_or_losses in drawn_values
    band, _ = drawing("norms", about, STREAMS).axes[0].collections
    assert {(9876, 2), (9876, 5)} <= set(map(tuple, band.get_paths()[0].vertices))  # from the lowest to the highest


# Files -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, words, keys", [
    ("reach", [], reach.KEYS), ("norms", [], norms.KEYS), ("neurons", ["--model", "relu", "--unit", "1:3"], ["unit"])])
def test_a_user_gets_figure_and_file_in_runs_and_the_published_ones_stay_as_they_are(name, words, keys, project, call):
    before = helpers.files(project / "graphs")
    call(name, *words)
    assert helpers.files(project / "graphs") == before
    assert helpers.files(project / "runs").keys() == {f"{name}.csv", f"{name}.png"}
    about, curves = read(name, project / "runs" / f"{name}.csv")
    assert (about["text"], about["horizons"]) == ("play.txt", [20]) and 0.5 in about["epochs"].values()
    assert curves.keys() == set(keys)
    picture = (project / "runs" / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    shutil.copy(project / "runs" / f"{name}.csv", project / "graphs")
    call(name, "--redraw", "--out", "again")
    assert (project / "again" / f"{name}.png").read_bytes() == picture  # it is that of the user's own file


def test_a_user_may_give_other_networks_text_and_folder(runs, project, call):
    assert util.read_text(util.PLAY)[reach.AT] == "\n"  # what is predicted by default is the end of a line
    (project / "other.txt").write_text(KNOWN[:300])
    call("reach_text", "--runs", runs, "--text", "other.txt", "--at", 200, "--out", "there")
    about, curves = read("reach_text", project / "there" / "reach_text.csv")
    assert (about["text"], about["passage"], about["next"]) == ("other.txt", KNOWN[50:200], KNOWN[200])
    assert list(curves) == ["relu", "stirnn"] and (project / "there" / "reach_text.png").exists()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_figure_is_redrawn_from_its_published_file_alone_which_has_all_curves_in_little_room(name, project, call):
    before = helpers.files(project / "graphs")
    assert read(name, project / "graphs" / f"{name}.csv")[1].keys() == set(FIGURES[name][1]) - {"unit"}
    assert len(before[f"{name}.csv"]) < 150_000
    shutil.rmtree(project / "data")
    call(name, "--redraw", "--out", "drawn")
    assert helpers.files(project / "graphs") == before
    assert helpers.files(project / "drawn").keys() == {f"{name}.png"}


@pytest.mark.parametrize("name, words, why", [
    ("reach_text", ["--redraw", "--at", 5], "--at cannot be given with --redraw"),
    ("norms", ["--redraw", "--plain", "runs"], "--plain cannot be given with --redraw"),
    ("neurons", ["--text", "a", "--redraw"], "--text cannot be given with --redraw"),
    ("reach", ["--at", 5], "--at goes with --on-text: --on-text --at 5"),
    ("neurons", ["--modle", "relu"], "unrecognized arguments: --modle relu; --help lists all options")])
def test_options_of_a_figure_that_do_not_exist_or_go_together_are_refused(name, words, why, project, call):
    assert why in helpers.refusal(call, name, *words) and not (project / "runs").exists()


def test_a_file_reads_back_as_it_was_written(tmp_path):
    about = {"text": "play.txt", "epochs": {"stabilised": 1, "plain": 2.5}, "horizons": [100], "passage": "a,\n\u2028ж"}
    common.write_csv(tmp_path / "norms.csv", norms.HEADER, about, STREAMS)
    told, curves = read("norms", tmp_path / "norms.csv")
    assert (told, {key: rows.tolist() for key, rows in curves.items()}) == (about, STREAMS)


def test_a_folder_that_cannot_be_written_to_is_told_of(project, call):
    line = helpers.refusal(call, "norms", "--redraw", "--out", "relu.npz")  # which is a file
    assert "cannot write to relu.npz" in line


def test_a_matplotlib_backend_that_does_not_exist_is_told_in_a_line_before_anything_is_done(tmp_path):
    environment = {**helpers.ENVIRONMENT, "MPLBACKEND": "nonsense"}
    process = helpers.start(["-m", "graphs.reach", "--out", tmp_path], cwd=helpers.ROOT, env=environment)
    output, errors = helpers.end(process, status=2)
    assert not output and "'nonsense'" in errors and errors.count("\n") == 1 and not any(tmp_path.iterdir())


ABOUT, ROW = '# {"text": "play.txt", "epochs": {}, "horizons": []}', "plain,1,2,2,3,5"


@pytest.mark.parametrize("lines", [
    None, [], ["\xff\xfe"], [ABOUT], [norms.HEADER, ROW], [ABOUT, norms.HEADER], ["# {}", norms.HEADER, ROW],
    ["# []", norms.HEADER, ROW], [ABOUT, "network", ROW], [ABOUT, norms.HEADER, ROW + ",5"],
    [ABOUT, norms.HEADER, "plain,1,2,2,3"], [ABOUT, norms.HEADER, "nobody," + ROW],
    [ABOUT, norms.HEADER, ROW, "", ROW], [ABOUT, norms.HEADER, "plain,1,2,2,3,nan"],
    [ABOUT, norms.HEADER, "plain,nan,2,2,3,5"], "cut"])
def test_a_missing_or_damaged_file_is_refused(lines, tmp_path):
    path, whole = tmp_path / "figure.csv", f"{ABOUT}\n{norms.HEADER}\n{ROW}\n"
    path.write_text(whole)
    read("norms", path)  # a whole one is not refused
    if lines is None:
        path.unlink()
    else:
        path.write_bytes((whole[:-1] if lines == "cut" else "".join(f"{line}\n" for line in lines)).encode("latin-1"))
    assert str(path) in helpers.refusal(read, "norms", path)


# Publishing ------------------------------------------------------------------------------------------------------

def test_a_large_file_of_losses_is_thinned_evenly_and_keeps_every_validation():
    rows = [f"{i:06},1.000,2.34567,{'1.23456' * (i % 100 == 7)},,123456789.12\n" for i in range(4000)]
    head = [f"# {'about ' * 100}\n", ",".join(util.COLUMNS) + "\n"]
    expected = [row for i, row in enumerate(rows) if i % 3 == 0 or i % 100 == 7]
    assert publish.thin("".join(head + rows)) == "".join(head + expected)
    for count in range(1670, 1720):
        content = "".join(head + rows[:count])
        thinned = publish.thin(content)
        assert len(thinned) <= publish.LARGEST <= 60 * 1024
        assert (thinned == content) == (len(content) <= publish.LARGEST)
    validated = "".join(head + [row.replace(",,", ",1.2,", 1) for row in rows[:1800]])
    assert publish.thin(validated) == validated


def test_without_a_run_to_publish_a_line_asks_for_it(tmp_path):
    assert "give the folders" in helpers.refusal(publish.publish, [tmp_path / "nothing"])


@pytest.mark.parametrize("damaged", ["csv", "txt", "npz"])
def test_of_runs_one_of_which_is_damaged_nothing_is_published(damaged, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "REFERENCE", tmp_path / "graphs")
    monkeypatch.setattr(util, "DATA", tmp_path / "data")
    for suffix in "csv", "txt", "npz":
        shutil.copy(runs / f"stirnn.{suffix}", tmp_path)
    path = tmp_path / f"stirnn.{damaged}"
    path.write_bytes(path.read_bytes()[:-9]) if damaged != "txt" else path.unlink()
    line = helpers.refusal(publish.publish, [runs, tmp_path] if damaged != "npz" else [tmp_path])
    assert str(path) in line and not {tmp_path / "graphs", tmp_path / "data"} & set(tmp_path.iterdir())


def test_a_published_network_is_the_best_one_in_sixteen_bits_and_nothing_else(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(util, "DATA", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(runs / "relu.npz", tmp_path)
    meta, arrays = util.load_checkpoint(path, "relu")
    helpers.change(path, **{"weights/Why": np.zeros_like})
    util.write_file(tmp_path / "data" / "relu.npz", publish.network(path, "relu"))
    best = util.part(arrays, "best")
    with np.load(tmp_path / "data" / "relu.npz", allow_pickle=False) as file:
        told = json.loads(str(file["meta"]))
        found = {name: file[name].dtype for name in file.files if name != "meta"}
    assert found == {f"best/{name}": np.float16 for name in best}
    weights, _ = util.load_network("relu")
    for name, array in best.items():
        np.testing.assert_allclose(weights[name], array, rtol=2**-11, atol=1e-7)
    assert told == {name: meta[name] for name in told} and "train" not in told  # no path of whoever trained it


def test_a_published_network_is_compressed(runs):
    with zipfile.ZipFile(io.BytesIO(publish.network(runs / "relu.npz", "relu"))) as archive:
        assert {file.compress_type for file in archive.infolist()} == {zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize("finals, middle", [([2.0, 0.5, 1.0, 1.5], 4), ([2.0, 0.5, 1.0, 1.5, 1.2], 5)])
def test_the_ended_run_of_the_middle_final_loss_is_published(finals, middle, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "REFERENCE", tmp_path / "graphs")
    monkeypatch.setattr(util, "DATA", tmp_path / "data")
    about, names, *_ = (runs / "relu.csv").read_text(encoding="utf-8").splitlines()
    folders = [tmp_path / str(number) for number in range(1, len(finals) + 2)]
    for number, (folder, final) in enumerate(zip(folders, finals), start=1):
        folder.mkdir()
        end = "0.99" if number == 2 else "1"
        rows = "0,0,,4.2,,0", f"20,0.5,2,{1 / final},,1", f"53,{end},2,{final},,2"
        (folder / "relu.csv").write_text("".join(f"{line}\n" for line in (about, names, *rows)))
        (folder / "relu.txt").write_text(f"samples of {number}")
        helpers.change(shutil.copy(runs / "relu.npz", folder), best_epoch=number)
    publish.publish(folders)  # nothing is in the last of them
    assert f"{folders[1] / 'relu.csv'} has not ended" in capsys.readouterr().out
    ended = {number: folder for number, folder in enumerate(folders[:-1], 1) if number != 2}
    losses = {f"relu.{number}.csv": (folder / "relu.csv").read_bytes() for number, folder in ended.items()}
    assert helpers.files(tmp_path / "graphs") == {**losses, "relu.1.txt": b"samples of 1"}
    assert helpers.files(tmp_path / "data").keys() == {"relu.npz"}
    assert util.load_network("relu", util.DATA)[1]["best_epoch"] == middle
