"""The figure scripts graphs/reach.py and graphs/norms.py: their numbers, and that their files suffice to draw from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import util  # before NumPy: it sets the threads of NumPy's BLAS

import numpy as np

import relu
from graphs import norms, reach

PNG = b"\x89PNG\r\n\x1a\n"
ROWS = [[1, 2.0, 2.0, 2.0, 4.2], [100, 2.0, 3.0, 5.0, 2.1], [10100, 7.0, np.inf, np.inf, np.inf]]


def run(folder, *words):
    """Run python in a folder and return what came of it."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path):
    """A copy of the project's programs: no text, no saved network, no figure."""
    (tmp_path / "graphs").mkdir()
    for program in (*ROOT.glob("*.py"), *ROOT.glob("graphs/*.py")):
        shutil.copy(program, tmp_path / program.relative_to(ROOT))
    return tmp_path


def nudged_loss(activation, weights, characters, target, layer, step, nudge):
    """Return the loss of the last step, where h[layer](step) is changed by nudge (H,) and all else follows from it."""
    depth, (hidden_size, vocabulary_size) = len(weights) // 3, weights["Why"].shape
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
    rng, D, H, V, T, epsilon = np.random.default_rng(5), 3, 7, 5, 9, 1e-6
    weights = model.init_weights(V, H, D, rng, np.float64)
    for name in weights:  # in all of them, zeros included: what reach() leaves out would otherwise not show
        weights[name] += rng.normal(0, 0.2, weights[name].shape)
    characters, target = rng.integers(V, size=T), 3
    activation = np.tanh if model.MODEL == "tanh" else lambda z: np.maximum(z, 0)
    expected = np.zeros((D, T))
    for d, k in np.ndindex(D, T):
        plus, minus = ([nudged_loss(activation, weights, characters, target, d, T - k, sign * epsilon * unit)
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


def test_a_trained_curve_stays_in_the_file_where_there_is_no_saved_network_now(tmp_path, monkeypatch):
    trained, stale = {0: {0: 0.5, 200: 2e-9}}, {0: {0: 123.0}}
    for name, value in dict(MODELS=(relu,), SEEDS=1, SEQUENCES=2, TIMES=(201,), CSV=tmp_path / "reach.csv").items():
        monkeypatch.setattr(reach, name, value)
    monkeypatch.setattr(sys, "argv", ["reach.py"])
    monkeypatch.chdir(tmp_path)
    reach.write_curves(reach.CSV, {("relu", "trained"): trained, ("relu", "initial"): stale})
    reach.main()
    curves = reach.read_curves(reach.CSV)
    assert curves["relu", "trained"] == trained
    assert list(curves["relu", "initial"]) == [0, 1, 2]
    assert list(curves["relu", "initial"][0]) == list(range(201))
    assert curves["relu", "initial"][0][0] != 123.0


def test_the_file_of_the_reach_figure_has_every_model_at_initialisation_and_less_than_150_kilobytes():
    path = ROOT / "graphs" / "reach.csv"
    assert {(model.MODEL, "initial") for model in reach.MODELS} <= reach.read_curves(path).keys()
    assert path.stat().st_size < 150_000


def test_the_reach_figure_is_redrawn_from_its_file_alone(copy):
    shutil.copy(ROOT / "graphs" / "reach.csv", copy / "graphs")
    result = run(copy, "-m", "graphs.reach", "--redraw")
    assert (result.returncode, result.stderr) == (0, "")
    assert (copy / "graphs" / "reach.png").read_bytes().startswith(PNG)


def test_the_norms_figure_is_redrawn_from_its_file_alone_though_a_state_overflowed(copy):
    norms.write_csv(copy / "graphs" / "norms.csv", {"text": "play.txt", "epochs": {"stabilised": 1, "plain": 1}},
                    {"stabilised": ROWS[:2], "plain": ROWS})
    result = run(copy, "-m", "graphs.norms")
    assert (result.returncode, result.stderr) == (0, "")
    assert (copy / "graphs" / "norms.png").read_bytes().startswith(PNG)


def test_a_file_of_norms_reads_back_as_it_was_written(tmp_path):
    about = {"text": "play.txt", "epochs": {"stabilised": 1, "plain": 2.5}}
    curves = {"stabilised": ROWS[:2], "plain": ROWS}
    norms.write_csv(tmp_path / "norms.csv", about, curves)
    assert norms.read_csv(tmp_path / "norms.csv") == (about, curves)


def test_a_stream_once_overflowed_stays_so_and_its_norms_are_those_of_the_largest_layer():
    weights = norms.stirnn.init_weights(3, 4, 2, np.random.default_rng(0))
    weights["Wxh0"][:], weights["Wxh1"][:], weights["Whh1"] = 1, 0, 10 * np.eye(4, dtype=np.float32)
    weights["bh1"][:], indices = 1, np.zeros(250, int)
    sizes, nats = norms.read_stream(weights, indices, indices)
    np.testing.assert_allclose(sizes[:3], [2, 22, 222])  # h[1](t) = 10 h[1](t-1) + 1 in each of 4 units; h[0](t) = t
    assert np.isfinite(sizes[:38]).all() and np.isinf(sizes[40:]).all()
    assert np.isfinite(nats[:30]).all() and np.isinf(nats[40:]).all()


def test_the_network_without_stabiliser_is_trained_by_the_same_script_with_beta_0_and_not_taken_for_it(copy):
    (copy / "cat.txt").write_text("the cat sat on the mat and looked at me. " * 300)
    options = "--train", "cat.txt", "--epochs", 1, "--hidden-size", 8, "--no-plot", "--quiet", "--out"
    assert run(copy, "stirnn.py", *options, "a").returncode == 0
    assert run(copy, "-m", "graphs.norms", "--train-plain", *options, "b").returncode == 0
    penalties = {name: util.load_checkpoint(copy / name / "stirnn.npz", "stirnn").history[-1][-1] for name in "ab"}
    assert penalties["a"] > 0 == penalties["b"]
    paths = {"stabilised": copy / "a" / "stirnn.npz", "plain": copy / "b" / "stirnn.npz"}
    about, curves = norms.measure(paths, copy / "cat.txt")
    assert about == {"text": "cat.txt", "epochs": {"stabilised": 1, "plain": 1}}
    assert curves["stabilised"] != curves["plain"] and curves["plain"][-1][0] == 10_100
    with pytest.raises(SystemExit):  # the two mixed up
        norms.measure({"stabilised": paths["plain"], "plain": paths["stabilised"]}, copy / "cat.txt")


@pytest.mark.parametrize("read", [reach.read_curves, norms.read_csv])
@pytest.mark.parametrize("content", [None, b"", b"model,stage,layer,lag,norm\nrelu,initial,0,1", b"\xff\xfe",
                                     b"# {}\nnetwork\nplain,1,2,3,4,nan\n", b"# []\nnetwork\nplain,1,2,3,4,5\n"])
def test_a_missing_or_damaged_file_ends_the_program_with_one_line_and_status_2(read, content, tmp_path, capsys):
    path = tmp_path / "figure.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        read(path)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
