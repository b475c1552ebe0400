"""The figures of graphs/reach.py and graphs/norms.py: their numbers, which networks they show, and their files."""

import shutil
import sys
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
from graphs import common, norms, reach

FIGURES = {"reach": reach, "norms": norms}
PNG = b"\x89PNG\r\n\x1a\n"
STREAMS = {"stabilised": [[1, 2.0, 2.0, 2.0, 4.2], [100, 2.0, 3.0, 5.0, 2.1]],
           "plain": [[1, 2.0, 2.0, 2.0, 4.2], [10100, 7.0, np.inf, np.inf, np.inf]]}
each_figure = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """A folder with a network of relu.py and one of stirnn.py, and in plain/ one without the stabiliser."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    words = [*helpers.TINY, "--epochs", 1, "--train", text, "--quiet", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        for script in relu, stirnn:
            patch.setattr(script, "Grapher", mock.MagicMock())  # their own plots take long
        helpers.train(relu, *words, folder)
        helpers.train(stirnn, *words, folder)
        helpers.train(stirnn, *words, folder / "plain", "--beta", 0)
    return folder


@pytest.fixture
def copy(tmp_path):
    """A copy of the project without texts, networks and figures, but with the figures' files."""
    (tmp_path / "graphs").mkdir()
    for path in (*helpers.ROOT.glob("*.py"), *helpers.ROOT.glob("graphs/*.py"),
                 *(helpers.ROOT / "graphs" / f"{name}.csv" for name in FIGURES)):
        shutil.copy(path, tmp_path / path.relative_to(helpers.ROOT))
    return tmp_path


@pytest.fixture
def call(monkeypatch):
    """A function that does in this process what the command line of a figure asks for."""
    def main(name, *words, measure=None):
        figure = FIGURES[name]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        common.main(name, figure.__doc__, figure.HEADER, figure.KEYS, (10, 4), measure, figure.draw)

    monkeypatch.setattr(common.signal, "signal", mock.Mock())  # Ctrl-C shall still end the tests
    return main


def published(folder):
    return {path: path.read_bytes() for path in (folder / "graphs").iterdir() if path.is_file()}


def measure(figure, runs, text=util.PLAY):
    return figure.measure(SimpleNamespace(runs=runs, plain=runs / "plain", text=text))


def read(figure, path):
    return common.read_csv(path, figure.HEADER, figure.KEYS)


def drawn(figure, about, curves):
    """Return the words of the legend in a drawing of the curves, which must have room for it, and the lines."""
    drawing = Figure((10, 4))
    figure.draw(drawing, about, {key: np.array(rows) for key, rows in curves.items()})
    drawing.draw_without_rendering()
    legend, = drawing.legends
    assert drawing.bbox.x0 < legend.get_window_extent().x0 < legend.get_window_extent().x1 < drawing.bbox.x1
    return ([text.get_text() for text in legend.get_texts()],
            [line for axes in drawing.axes for line in axes.get_lines()])


# The reach of the gradient ---------------------------------------------------------------------------------------

def nudged_loss(activation, weights, depth, characters, target, layer, step, nudge):
    """Return the loss of the last step, where h[layer](step) is changed by nudge (H,) and all else follows from it."""
    hidden_size, vocabulary_size = weights["Why"].shape
    h = np.zeros((depth, hidden_size))
    for t, character in enumerate(characters, start=1):
        x = np.eye(vocabulary_size)[character]
        for d in range(depth):
            h[d] = activation(x @ weights[f"Wxh{d}"] + h[d] @ weights[f"Whh{d}"] + weights[f"bh{d}"])
            if (d, t) == (layer, step):
                h[d] += nudge
            x = h[d]
    logits = x @ weights["Why"] + weights["by"]
    return np.log(np.exp(logits).sum()) - logits[target]


@pytest.mark.parametrize("model", reach.MODELS, ids=lambda model: model.MODEL)
def test_reach_is_the_norm_of_the_gradient_that_central_differences_give(model):
    rng, D, H, V, T, epsilon = np.random.default_rng(12), 3, 7, 5, 9, 1e-6
    weights = model.init_weights(V, H, D, rng, np.float64)
    for name in weights:  # in all of them, zeros included: what reach() leaves out would otherwise not show
        weights[name] += rng.normal(0, 0.2, weights[name].shape)
    characters, target = rng.integers(V, size=T), 3
    activation = np.tanh if model.MODEL == "tanh" else lambda z: np.maximum(z, 0)
    expected = np.zeros((D, T))
    for d, k in np.ndindex(D, T):
        plus, minus = ([nudged_loss(activation, weights, D, characters, target, d, T - k, sign * epsilon * unit)
                        for unit in np.eye(H)] for sign in (1, -1))
        expected[d, k] = np.linalg.norm(np.subtract(plus, minus) / (2 * epsilon))
    got = reach.reach(model, weights, characters[:, None], np.array([target]), T - 1)
    assert expected.min() > 1e-6  # the comparison is of gradients, not of zeros
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-9)


def test_reach_takes_the_geometric_mean_over_sequences():
    rng = np.random.default_rng(1)
    weights, inputs, targets = relu.init_weights(5, 16, 2, rng), rng.integers(5, size=(12, 3)), np.array([0, 1, 4])
    alone = [reach.reach(relu, weights, inputs[:, [b]], targets[[b]], 10) for b in range(3)]
    np.testing.assert_allclose(reach.reach(relu, weights, inputs, targets, 10), np.prod(alone, axis=0) ** (1 / 3))


def test_a_geometric_mean_leaves_exact_zeros_out_and_is_zero_where_there_is_nothing_else():
    got = reach.geometric_mean(np.array([[1e-200, 1e-100], [0, 5], [0, 0]]), axis=1)
    np.testing.assert_allclose(got, [1e-150, 5, 0])


def test_a_curve_of_reach_is_the_geometric_mean_over_networks_and_times_without_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(reach, "TIMES", (6, 8))
    monkeypatch.setattr(reach, "LAGS", 3)
    rng = np.random.default_rng(2)
    networks, (inputs, targets) = [relu.init_weights(5, 16, 2, rng) for _ in range(3)], rng.integers(5, size=(2, 8, 4))
    expected = np.prod([reach.reach(relu, weights, inputs[:t], targets[t - 1], 3)
                        for weights in networks for t in (6, 8)], axis=0) ** (1 / 6)
    rows = np.array(reach.average_reach(relu, networks, inputs, targets))
    assert rows[:, :2].tolist() == [[d, k] for d in range(2) for k in range(4)]
    np.testing.assert_allclose(rows[:, 2], expected.ravel())
    networks[0]["Wxh1"][:] = np.nan  # as of a state that has overflowed
    with np.errstate(all="ignore"):
        assert reach.average_reach(relu, networks, inputs, targets) == []


def test_an_untrained_network_of_stirnn_has_a_gradient_too(monkeypatch):
    monkeypatch.setattr(reach, "TIMES", (6,))
    monkeypatch.setattr(reach, "LAGS", 3)
    inputs, targets = np.random.default_rng(2).integers(5, size=(2, 8, 4))
    assert len(reach.average_reach(stirnn, [reach.new_network(stirnn, (5, 16, 2), 1)], inputs, targets)) == 2 * 4


def test_reach_is_measured_of_the_saved_networks_of_lowest_validation_loss_and_of_new_ones_of_their_sizes(
        runs, tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "SEEDS", 2)
    path = shutil.copy(runs / "relu.npz", tmp_path)
    _, arrays = util.load_checkpoint(runs / "relu.npz", "relu")
    helpers.change(path, **{"best_epoch": 0.75, "weights/Why": np.zeros_like(arrays["weights/Why"])})
    about, curves = measure(reach, tmp_path)
    assert about == {"text": "play.txt", "epochs": {"relu": 0.75}, "horizons": [20]}
    assert list(curves) == ["relu,initial", "relu,trained"]
    assert {d for d, _, _ in curves["relu,initial"]} == {d for d, _, _ in curves["relu,trained"]} == {0, 1}
    meta, _ = util.load_checkpoint(path, "relu")
    text = "".join(character for character in util.read_text(util.PLAY) if character in meta["vocabulary"])
    batch = util.batch(util.encode(text, meta["vocabulary"]), 0, reach.SEQUENCES, max(reach.TIMES))
    new = [relu.init_weights(len(meta["vocabulary"]), 16, 2, np.random.default_rng(seed)) for seed in (1, 2)]
    assert curves["relu,initial"] == reach.average_reach(relu, new, *batch)
    assert curves["relu,trained"] == reach.average_reach(relu, [util.part(arrays, "best")], *batch)


def test_the_reach_figure_names_each_network_with_its_epoch_and_draws_all_its_layers():
    faded = {"tanh": 0.9, "relu": 0.8, "stirnn": 0.7, "nprnn": 0.6}  # of its norm stays so much from step to step
    curves = {f"{model},{stage}": [[d, k, faded[model] ** k] for d in range(2) for k in range(9)]
              for model in faded for stage in ("initial", "trained")}
    epochs = {"tanh": 98, "relu": 17.75, "stirnn": 19.25, "nprnn": 18.75}
    names, lines = drawn(reach, {"text": "play.txt", "epochs": epochs, "horizons": [50]}, curves)
    assert names == ["tanh, epoch 98", "relu, epoch 17.75", "stirnn, epoch 19.25", "nprnn, epoch 18.75",
                     "at initialisation", "after training"]
    for model in faded:
        norms_drawn = [line.get_ydata().tolist() for line in lines if line.get_color() == COLORS[model]]
        assert norms_drawn == [[faded[model] ** k for k in range(9)]] * 4
    assert [line.get_xdata() for line in lines if len(line.get_xdata()) == 2] == [[50, 50]] * 2
    names, _ = drawn(reach, {}, curves)
    assert names[:4] == list(faded)  # of an older file


def test_reach_without_a_saved_network_says_how_to_train_one(tmp_path):
    line = helpers.refusal(measure, reach, tmp_path)
    assert f"python relu.py --out {tmp_path}" in line


# The norms of the states -----------------------------------------------------------------------------------------

def counting_network(growth):
    """Return a network with h[0](t) = t and h[1](t) = growth h[1](t-1) + 1 in each of 4 units, whatever it reads."""
    weights = stirnn.init_weights(3, 4, 2, np.random.default_rng(0))
    weights["Wxh0"][:], weights["Wxh1"][:], weights["Whh1"] = 1, 0, growth * np.eye(4, dtype=np.float32)
    weights["bh1"][:], weights["Why"][:] = 1, np.random.default_rng(0).normal(0, 1, (4, 3))
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


def test_a_row_of_norms_stands_for_the_steps_since_the_one_before_and_its_loss_for_a_hundred_or_more():
    steps = np.arange(1, 10_101)
    ends, lowest, mean, highest, losses = np.array(norms.thin(steps, steps)).T
    assert ends[0] == 1 and ends[-1] == 10_100
    assert (highest == ends).all() and (lowest[1:] == ends[:-1] + 1).all()
    np.testing.assert_allclose(mean, (lowest + highest) / 2)
    counts = 2 * (ends - losses) + 1  # of steps that end with this one and have this mean
    np.testing.assert_allclose(counts, np.maximum(highest - lowest + 1, np.minimum(ends, norms.WINDOW)))


def test_norms_are_measured_of_the_networks_of_lowest_validation_loss_with_and_without_the_stabiliser(
        runs, tmp_path, capsys):
    folders = {"stabilised": ".", "plain": "plain"}
    known = util.load_checkpoint(runs / "stirnn.npz", "stirnn")[0]["vocabulary"]
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    biases = np.full(len(known), 9, np.float32)
    for epoch, folder in zip((0.75, 0.5), folders.values()):
        helpers.change(tmp_path / folder / "stirnn.npz", **{"best_epoch": epoch, "weights/by": biases})
    capsys.readouterr()
    about, curves = measure(norms, tmp_path)
    assert capsys.readouterr().err == ""
    assert about == {"text": "play.txt", "epochs": {"stabilised": 0.75, "plain": 0.5}, "horizons": [20]}
    assert list(curves) == ["stabilised", "plain"]
    text = "".join(character for character in util.read_text(util.PLAY) if character in known)[:10_101]
    indices = util.encode(text, known)
    for name, folder in folders.items():
        _, arrays = util.load_checkpoint(runs / folder / "stirnn.npz", "stirnn")
        assert curves[name] == norms.thin(*norms.read_stream(util.part(arrays, "best"), indices[:-1], indices[1:]))


def test_networks_that_are_mixed_up_or_not_there_are_refused(runs, tmp_path):
    shutil.copytree(runs / "plain", tmp_path / "a")
    assert "--beta 0" in helpers.refusal(measure, norms, tmp_path / "a")  # nothing in a/plain
    shutil.copytree(runs, tmp_path / "a" / "plain")
    assert "--beta 0" in helpers.refusal(measure, norms, tmp_path / "a")


def test_networks_that_differ_in_more_than_the_stabiliser_are_told_of(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "stirnn.npz"
    settings = util.load_checkpoint(path, "stirnn")[0]["settings"]
    helpers.change(path, settings={**settings, "dropout": 0.2, "seed": 7})
    measure(norms, tmp_path)
    assert "dropout, seed" in capsys.readouterr().err


def test_the_norms_figure_names_both_networks_with_their_epochs_and_where_they_leave_the_axes():
    about = {"text": "$5 ^^ $6.txt", "epochs": {"stabilised": 19, "plain": 3.5}, "horizons": [100]}  # no mathematics
    names, lines = drawn(norms, about, STREAMS)
    assert names[0] == "with the stabiliser, epoch 19"
    assert names[1].startswith("without (--beta 0), epoch 3.5; off the axes by step 10,100")
    drawn_values = [list(line.get_ydata()) for line in lines]
    for means_or_losses in [2, 3], [2, norms.TOP_NORM], [4.2, 2.1], [4.2, norms.TOP_LOSS]:
        assert means_or_losses in drawn_values


# Files -----------------------------------------------------------------------------------------------------------

@each_figure
def test_a_user_gets_figure_and_file_in_runs_and_the_published_ones_stay_as_they_are(name, runs, copy):
    shutil.copytree(runs, copy / "runs")
    before = published(copy)
    helpers.end(helpers.start(["-m", f"graphs.{name}", "--text", util.PLAY], cwd=copy))
    assert published(copy) == before
    about, curves = read(FIGURES[name], copy / "runs" / f"{name}.csv")
    assert (about["text"], about["horizons"]) == ("play.txt", [20])
    assert list(curves) == [key for key in FIGURES[name].KEYS if not key.startswith(("tanh", "nprnn"))]
    assert (copy / "runs" / f"{name}.png").read_bytes().startswith(PNG)


@each_figure
def test_a_figure_is_redrawn_from_its_published_file_alone(name, copy, call, monkeypatch):
    monkeypatch.setattr(common, "GRAPHS", copy / "graphs")
    before = published(copy)
    call(name, "--redraw", "--out", copy / "drawn")
    assert published(copy) == before
    assert [path.name for path in (copy / "drawn").iterdir()] == [f"{name}.png"]
    assert (copy / "drawn" / f"{name}.png").read_bytes().startswith(PNG)


def test_the_published_files_have_all_curves_and_take_little_room():
    for name, figure in FIGURES.items():
        path = helpers.ROOT / "graphs" / f"{name}.csv"
        assert read(figure, path)[1].keys() == set(figure.KEYS)
        assert path.stat().st_size < 150_000


def test_a_file_reads_back_as_it_was_written(tmp_path):
    about = {"text": "play.txt", "epochs": {"stabilised": 1, "plain": 2.5}, "horizons": [100]}
    common.write_csv(tmp_path / "norms.csv", norms.HEADER, about, STREAMS)
    told, curves = read(norms, tmp_path / "norms.csv")
    assert told == about
    assert {key: rows.tolist() for key, rows in curves.items()} == STREAMS


def test_the_networks_read_the_text_that_is_given_or_shakespeares_or_else_the_play(call, tmp_path, monkeypatch):
    shakespeare, play, given = [tmp_path / f"{name}.txt" for name in ("shakespeare", "play", "given")]
    monkeypatch.setattr(common, "TEXTS", (shakespeare, play))
    found = []

    def measure(options):
        found.append(options.text)
        sys.exit()

    for words in [], ["--text", given]:
        for path in play, shakespeare:
            path.touch()
            with pytest.raises(SystemExit):
                call("norms", *words, measure=measure)
    assert found == [play, shakespeare, given, given]


@each_figure
def test_a_text_that_is_too_short_is_refused(name, runs, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat on the mat " * 300)
    assert "short.txt has 6,900 characters" in helpers.refusal(measure, FIGURES[name], runs, tmp_path / "short.txt")


def test_a_folder_that_cannot_be_written_to_is_told_of(tmp_path, call):
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert f"cannot write to {path}" in helpers.refusal(lambda: call(
        "norms", "--out", path, measure=lambda options: ({}, STREAMS)))


@pytest.mark.parametrize("content", [
    None, b"", b"\xff\xfe", b"# {}\n", b"{HEADER}\n", b"# {}\n{HEADER}\n", b"# []\n{HEADER}\n{ROW}\n",
    b"# {\n{HEADER}\n{ROW}\n", b"# {}\nnetwork\n{ROW}\n", b"{HEADER}\n{ROW}",
    b"{HEADER}\n{ROW},5\n", b"{HEADER}\n{SHORT}\n", b"{HEADER}\nnobody,{ROW}\n", b"{HEADER}\n{ROW}\n\n{ROW}\n",
    b"{HEADER}\n{ROW}\n{SHORT},nan\n"])
@each_figure
def test_a_missing_or_damaged_file_is_refused(name, content, tmp_path):
    path, header, short = tmp_path / "figure.csv", FIGURES[name].HEADER, f"{FIGURES[name].KEYS[0]},1,2,3,4"
    short = ",".join(short.split(",")[:header.count(",")])
    if content is not None:
        for place, words in ("{HEADER}", header), ("{ROW}", f"{short},5"), ("{SHORT}", short):
            content = content.replace(place.encode(), words.encode())
        path.write_bytes(content)
    assert str(path) in helpers.refusal(read, FIGURES[name], path)
