"""Initialisation, dropout, RMSProp, evaluation, sampling and learning of the four networks."""

import numpy as np
import pytest

import nprnn
import relu
import stirnn
import tanh
import util

MODELS = [tanh, relu, stirnn, nprnn]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)


@each_model
def test_weights_are_a_dict_of_float32_arrays_named_and_shaped_as_in_the_equations(model):
    weights = model.init_weights(65, 32, 3, np.random.default_rng(0))
    shapes = {"Wxh0": (65, 32), "Wxh1": (32, 32), "Wxh2": (32, 32), "Why": (32, 65), "by": (65,)}
    shapes.update({f"Whh{d}": (32, 32) for d in range(3)} | {f"bh{d}": (32,) for d in range(3)})
    assert {name: array.shape for name, array in weights.items()} == shapes
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert {array.ctypes.data % 64 for array in weights.values()} == {0}


@pytest.mark.parametrize("model", [tanh, relu], ids=lambda model: model.MODEL)
def test_xaviers_recurrent_matrix_keeps_the_size_of_a_state(model):
    Whh = model.init_weights(65, 256, 1, np.random.default_rng(0), np.float64)["Whh0"]
    states = np.random.default_rng(1).normal(size=(1000, 256))
    assert np.std(states @ Whh) == pytest.approx(1, abs=0.05) and abs(Whh.mean()) < 1e-3


def test_the_identity_hands_a_state_on_unchanged():
    weights = stirnn.init_weights(5, 16, 1, np.random.default_rng(0), np.float64)
    states = np.random.default_rng(1).uniform(0, 1, (1, 3, 16))
    _, _, hs = stirnn.forward(weights, np.zeros((50, 3, 5)), states)
    assert np.array_equal(weights["Whh0"], np.eye(16))
    assert np.array_equal(hs[0], np.broadcast_to(states[0], (51, 3, 16)))


def test_np_rnns_recurrent_matrix_is_symmetric_positive_definite_and_its_largest_eigenvalue_is_1():
    weights = nprnn.init_weights(65, 64, 3, np.random.default_rng(0), np.float64)
    for d in range(3):
        eigenvalues = np.linalg.eigvalsh(weights[f"Whh{d}"])
        assert np.array_equal(weights[f"Whh{d}"], weights[f"Whh{d}"].T)
        assert eigenvalues[0] > 0 and eigenvalues[-1] == pytest.approx(1, abs=1e-12)
    assert not np.array_equal(weights["Whh0"], weights["Whh1"])


@each_model
@pytest.mark.parametrize("B", [1, 2, 3, 4, 5])
def test_forward_is_the_equations_of_the_docstring(model, B):
    rng = np.random.default_rng(0)
    weights = model.init_weights(4, 5, 2, rng, np.float64)
    for array in weights.values():
        array += rng.normal(0, 0.3, array.shape)
    inputs, states = util.one_hot(rng.integers(0, 4, (6, B)), 4, np.float64), rng.uniform(0, 1, (2, B, 5))
    masks = model.dropout_masks((2, 6, B, 5), 0.5, rng, np.float64)
    logits, _, _ = model.forward(weights, inputs, states, masks)
    f = np.tanh if model is tanh else lambda z: np.where(z > 0, z, 0)
    h = states.copy()
    for t in range(6):
        x = inputs[t]
        for d in range(2):
            h[d] = f(x @ weights[f"Wxh{d}"] + h[d] @ weights[f"Whh{d}"] + weights[f"bh{d}"])
            x = h[d] * masks[d, t]
        assert np.allclose(logits[B * t:B * t + B], x @ weights["Why"] + weights["by"], rtol=1e-12)


@pytest.mark.parametrize("rows", range(1, 10))
def test_padded_steps_are_those_of_the_array_and_whole_blocks_of_rows(rows):
    array, padded = util.padded_zeros(3, rows, 5, np.float32)
    array[:] = np.random.default_rng(0).random(array.shape)
    assert array.flags.c_contiguous and len(padded) == 3
    assert rows == 1 or padded.shape[1] % 4 == 0
    rest = np.concatenate([array.reshape(-1, 5), np.zeros((4, 5), np.float32)])
    for t in range(3):
        assert np.array_equal(padded[t], rest[t * rows:][:padded.shape[1]])


@each_model
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_of_the_units_independently_and_keeps_the_mean(model, rate):
    masks = model.dropout_masks((3, 100, 10, 256), rate, np.random.default_rng(0))
    assert masks.dtype == np.float32 and len(np.unique(masks)) == (1 if rate == 0 else 2)
    assert np.mean(masks == 0) == pytest.approx(rate, abs=0.003)
    assert masks.mean(dtype=float) == pytest.approx(1, abs=0.003 / (1 - rate))
    if rate:
        kept = (masks != 0) - (1 - rate)
        for neighbour in (np.roll(kept, 1, axis) for axis in range(4)):
            assert abs(np.mean(kept * neighbour)) < 0.003


@each_model
def test_rmsprops_step_equals_its_formula(model):
    rng = np.random.default_rng(0)
    weights = {"Whh0": rng.normal(size=(4, 4)), "by": rng.normal(size=9)}
    grads = {name: rng.normal(0, 0.05, array.shape) for name, array in weights.items()}
    caches = {name: rng.uniform(0, 1, array.shape) for name, array in weights.items()}
    expected_caches = {name: model.DECAY * caches[name] + (1 - model.DECAY) * grads[name]**2 for name in weights}
    expected = {name: weights[name] - 0.01 / np.sqrt(len(weights[name])) * grads[name]
                / (np.sqrt(expected_caches[name]) + model.EPSILON) for name in weights}
    model.rmsprop(weights, caches, grads, 0.01)
    for name in weights:
        assert np.allclose(caches[name], expected_caches[name], rtol=1e-12)
        assert np.allclose(weights[name], expected[name], rtol=1e-12)


@each_model
def test_a_gradient_longer_than_the_clip_norm_counts_as_one_of_that_norm(model):
    rng = np.random.default_rng(0)
    grad = rng.normal(size=(3, 5))
    grad *= model.CLIP_NORM / np.linalg.norm(grad)
    steps = []
    for factor in (1, 1000):
        weights, caches = {"W": np.zeros((3, 5))}, {"W": np.zeros((3, 5))}
        model.rmsprop(weights, caches, {"W": grad * factor}, 0.01)
        steps.append((weights["W"], caches["W"]))
    assert np.allclose(steps[0], steps[1], rtol=1e-6)


@each_model
@pytest.mark.parametrize("length", [2, 11, 12, 250, 1001])
@pytest.mark.parametrize("streams", [1, 10])
def test_the_validation_loss_is_the_mean_over_every_character_but_the_first(model, length, streams):
    rng = np.random.default_rng(0)
    weights = model.init_weights(6, 8, 2, rng, np.float64)
    text = rng.integers(0, 6, length).astype(np.uint8)
    stretch, nats = -(-(length - 1) // streams), 0.0
    for start in range(0, length - 1, stretch):
        piece = text[start:start + stretch + 1]
        logits, _, _ = model.forward(weights, util.one_hot(piece[:-1, None], 6, float), np.zeros((2, 1, 8)))
        for logit, target in zip(logits, piece[1:]):
            nats += np.log(np.exp(logit).sum()) - logit[target]
    assert model.evaluate_loss(weights, text, streams=streams) == pytest.approx(nats / (length - 1), rel=1e-9)


@each_model
def test_sampling_follows_the_softmax_at_the_given_temperature(model):
    rng = np.random.default_rng(0)
    weights = model.init_weights(4, 8, 2, rng, np.float64)
    weights["by"] += [1.0, 0.0, -1.0, 0.5]
    start = util.one_hot(np.array([[2]]), 4, np.float64)
    logits, _, _ = model.forward(weights, start, np.zeros((2, 1, 8)))
    for temperature in (0.5, 1.0, 2.0):
        p = np.exp(logits[0] / temperature) / np.exp(logits[0] / temperature).sum()
        draws = [next(model.sample(weights, "abcd", 1, temperature, rng, "c")) for _ in range(3000)]
        counts = np.array([draws.count(character) for character in "abcd"])
        chi_squared = ((counts - 3000 * p)**2 / (3000 * p)).sum()
        assert chi_squared < 16.27  # 3 degrees of freedom: exceeded once in a thousand by the right distribution
        shifted = np.roll(p, 1)
        assert ((counts - 3000 * shifted)**2 / (3000 * shifted)).sum() > 16.27


@each_model
def test_a_temperature_near_0_is_greedy_and_a_seed_repeats_the_sample(model):
    weights = model.init_weights(4, 8, 2, np.random.default_rng(0))
    weights["by"] += np.float32([0, 1, 0.5, 0])
    greedy = {"".join(model.sample(weights, "abcd", 20, 1e-300, np.random.default_rng(seed))) for seed in range(5)}
    drawn = [list(model.sample(weights, "abcd", 20, 1.0, np.random.default_rng(7))) for _ in range(2)]
    assert len(greedy) == 1 and drawn[0] == drawn[1]


@each_model
def test_a_sample_goes_on_from_all_of_its_prime(model):
    weights = model.init_weights(3, 8, 1, np.random.default_rng(0))
    weights["Why"] += np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    text = util.encode("abcabca", "abc")
    logits, _, _ = model.forward(weights, util.one_hot(text[:, None], 3), np.zeros((1, 1, 8), np.float32))
    drawn = next(model.sample(weights, "abc", 1, 1e-6, np.random.default_rng(0), "abcabca"))
    assert drawn == "abc"[logits[-1].argmax()]


@each_model
def test_a_network_overfits_a_short_sentence_and_samples_it_back(model):
    sentence = "to ring a bell is to ask the sea a question."
    characters = util.vocabulary(sentence)
    text = util.encode(sentence, characters)[:, None]
    rng = np.random.default_rng(0)
    weights = model.init_weights(len(characters), 64, 2, rng)
    caches = {name: np.zeros_like(array) for name, array in weights.items()}
    states = np.zeros((2, 1, 64), np.float32)
    inputs, targets = util.one_hot(text[:-1], len(characters)), text[1:]
    for update in range(1500):
        result = model.forward_backward(weights, inputs, targets, states)
        model.rmsprop(weights, caches, result[-2], 0.01 * min(1, update / 200) * (1 - update / 1500))
    assert result[0] < 0.02
    assert "to" + "".join(model.sample(weights, characters, len(sentence) - 2, 0.1, rng, "to")) == sentence


@each_model
def test_results_do_not_depend_on_the_number_of_threads(model, monkeypatch):
    rng = np.random.default_rng(8)
    V, H, D, T, B = 65, 256, 2, 50, 10  # large enough for products to be shared out
    weights, states = model.init_weights(V, H, D, rng), rng.random((D, B, H), np.float32)
    inputs, targets = rng.integers(V, size=(2, T, B))
    results = []
    for threads in 1, 2:
        monkeypatch.setattr(util, "threads", threads)
        loss, *_, grads, carried = model.forward_backward(weights, util.one_hot(inputs, V), targets, states)
        results.append([loss.tobytes(), carried.tobytes(), {name: grad.tobytes() for name, grad in grads.items()}])
    assert results[0] == results[1]
