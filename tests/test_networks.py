"""Initialisation, forward pass, dropout, RMSProp, evaluation, sampling and learning of the four networks.

What test_skeleton.py finds to be the same in all four is tested in one.
"""

import math
import tracemalloc

import numpy as np
import pytest

import nprnn
import relu
import stirnn
import tanh
import util

from helpers import each_model, of


def network(model, V, H, D):
    """Return weights that are all random, biases and output weights too, whatever a model starts with."""
    rng = np.random.default_rng(0)
    weights = of(model, "init_weights")(V, H, D, rng, dtype=np.float64)
    for array in weights.values():
        array += rng.normal(0, 0.3, array.shape)
    return weights


@each_model
def test_weights_are_a_dict_of_float32_arrays_named_and_shaped_as_in_the_equations(model):
    weights = of(model, "init_weights")(65, 32, 3, np.random.default_rng(0))
    shapes = {"Wxh0": (65, 32), "Wxh1": (32, 32), "Wxh2": (32, 32), "Why": (32, 65), "by": (65,)}
    shapes.update({f"Whh{d}": (32, 32) for d in range(3)} | {f"bh{d}": (32,) for d in range(3)})
    assert {name: array.shape for name, array in weights.items()} == shapes
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


@each_model
def test_the_matrices_between_layers_have_xaviers_variance_and_biases_are_zero(model):
    weights = of(model, "init_weights")(65, 128, 2, np.random.default_rng(0), dtype=np.float64)
    for name in ("Wxh1", "Why"):
        assert np.var(weights[name]) == pytest.approx(2 / sum(weights[name].shape), rel=0.1), name
    assert not any(weights[name].any() for name in ("bh0", "bh1", "by"))


@pytest.mark.parametrize("model", [tanh, relu], ids=lambda model: model.MODEL)
def test_what_xaviers_recurrent_matrix_gives_is_as_large_as_the_state(model):
    Whh = model.init_weights(65, 256, 1, np.random.default_rng(0), np.float64)["Whh0"]
    states = np.random.default_rng(1).normal(size=(1000, 256))
    assert np.std(states @ Whh) == pytest.approx(1, abs=0.05) and abs(Whh.mean()) < 1e-3


@each_model
def test_a_character_makes_a_signal_of_variance_1(model):
    Wxh = of(model, "init_weights")(65, 256, 1, np.random.default_rng(0), np.float64)["Wxh0"]
    assert np.var(np.eye(65) @ Wxh, axis=1) == pytest.approx(1, abs=0.3) and np.var(Wxh) == pytest.approx(1, abs=0.05)


def test_stirnns_recurrent_matrix_is_the_identity_times_three_tenths():
    weights = stirnn.init_weights(5, 16, 2, np.random.default_rng(0), np.float64)
    states = np.random.default_rng(1).uniform(0, 1, (1, 3, 16))
    _, _, hs = stirnn.forward(weights, np.zeros((5, 3, 5)), states)
    assert np.array_equal(weights["Whh0"], 0.3 * np.eye(16)) and np.array_equal(weights["Whh1"], 0.3 * np.eye(16))
    assert np.allclose(hs[0], [states[0] * 0.3**t for t in range(6)], rtol=1e-12, atol=0)


def test_np_rnns_recurrent_matrix_is_symmetric_with_a_wishart_matrixs_eigenvalues_plus_1_over_the_largest_of_them():
    weights = nprnn.init_weights(65, 256, 2, np.random.default_rng(0), np.float64)
    for Whh in weights["Whh0"], weights["Whh1"]:
        eigenvalues = np.linalg.eigvalsh(Whh)
        assert np.array_equal(Whh, Whh.T) and eigenvalues[-1] == pytest.approx(1, abs=1e-12)
        assert eigenvalues[0] == pytest.approx(1 / 5, rel=0.03)  # a Wishart matrix's reach from 0 to 4,
        assert eigenvalues.mean() == pytest.approx(2 / 5, rel=0.03)  # and their mean is 1
    assert not np.array_equal(weights["Whh0"], weights["Whh1"])


@each_model
def test_forward_is_the_equations_of_the_docstring(model):
    rng, weights = np.random.default_rng(0), network(model, 4, 5, 2)
    inputs, states = util.one_hot(rng.integers(0, 4, (6, 3)), 4, np.float64), rng.uniform(0, 1, (2, 3, 5))
    masks = model.dropout_masks((2, 6, 3, 5), 0.5, rng, np.float64)
    logits, xs, hs = model.forward(weights, inputs, states, masks)
    f = np.tanh if model is tanh else lambda z: np.where(z > 0, z, 0)
    h = states.copy()
    assert np.array_equal(hs[:, 0], states)
    for t in range(6):
        x = inputs[t]
        for d in range(2):
            assert np.allclose(xs[d][3 * t:3 * t + 3], x, rtol=1e-12)
            h[d] = f(x @ weights[f"Wxh{d}"] + h[d] @ weights[f"Whh{d}"] + weights[f"bh{d}"])
            x = h[d] * masks[d, t]
        assert np.allclose(hs[:, t + 1], h, rtol=1e-12)
        assert np.allclose(logits[3 * t:3 * t + 3], x @ weights["Why"] + weights["by"], rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_of_the_units_independently_and_keeps_the_mean(rate):
    masks = relu.dropout_masks((3, 100, 10, 256), rate, np.random.default_rng(0))
    assert masks.dtype == np.float32 and len(np.unique(masks)) == (1 if rate == 0 else 2)
    assert np.mean(masks == 0) == pytest.approx(rate, abs=0.003)
    assert masks.mean(dtype=float) == pytest.approx(1, abs=0.003 / (1 - rate))
    if rate:
        kept = (masks != 0) - (1 - rate)
        for neighbour in (np.roll(kept, 1, axis) for axis in range(4)):
            assert abs(np.mean(kept * neighbour)) < 0.003


def rmsprops_step(grads, **settings):
    """Return weights and caches, random ones before, after a step of RMSProp with those gradients."""
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=grad.shape) for name, grad in grads.items()}
    caches = {name: rng.uniform(0, 0.1, grad.shape) for name, grad in grads.items()}
    before = {name: (weights[name].copy(), caches[name].copy()) for name in grads}
    of(relu, "rmsprop", **settings)(weights, caches, grads, 0.01)
    return before, {name: (weights[name], caches[name]) for name in grads}


def test_rmsprops_step_equals_its_formula():
    rng = np.random.default_rng(0)
    grads = {"Wxh0": rng.normal(size=(4, 6)), "by": rng.normal(size=9)}  # more columns than rows
    before, after = rmsprops_step(grads, decay=0.9, epsilon=0.1, clip_norm=np.inf, weight_decay=0.2)
    for name, grad in grads.items():
        weights, cache = before[name]
        cache = 0.9 * cache + 0.1 * grad**2
        step = grad / (np.sqrt(cache) + 0.1) / np.sqrt(len(grad))
        assert np.allclose(after[name][1], cache, rtol=1e-12)
        assert np.allclose(after[name][0], weights - 0.01 * (step + 0.2 * weights), rtol=1e-12)


def test_rmsprops_step_in_float32_makes_no_arrays_of_float64():
    weights, caches, grads = ({"Whh0": np.ones((500, 500), np.float32)} for _ in range(3))
    tracemalloc.start()
    try:
        of(relu, "rmsprop")(weights, caches, grads, 0.01)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * grads["Whh0"].nbytes


@pytest.mark.parametrize("length, counts_as", [(0.9, 0.9), (1.1, 1), (1000, 1)])
def test_all_gradients_together_longer_than_the_clip_norm_count_as_that_long(length, counts_as):
    rng = np.random.default_rng(0)
    grads = {"Whh0": rng.normal(size=(4, 4)), "by": rng.normal(size=9)}
    norm = np.sqrt(sum((grad**2).sum() for grad in grads.values()))  # each array alone is shorter by a third
    _, clipped = rmsprops_step({name: grad * length / norm for name, grad in grads.items()}, clip_norm=1)
    _, expected = rmsprops_step({name: grad * counts_as / norm for name, grad in grads.items()}, clip_norm=np.inf)
    for name in grads:
        assert np.allclose(clipped[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("length", [2, 11, 12, 250, 1001, 2345])
@pytest.mark.parametrize("streams", [1, 10])
def test_the_validation_loss_is_the_mean_over_every_character_but_the_first(length, streams):
    weights = network(tanh, 6, 8, 2)
    text = np.random.default_rng(0).integers(0, 6, length).astype(np.uint8)
    stretch, nats = math.ceil((length - 1) / streams), 0.0
    for start in range(0, length - 1, stretch):
        piece = text[start:start + stretch + 1]
        logits, _, _ = tanh.forward(weights, util.one_hot(piece[:-1, None], 6, float), np.zeros((2, 1, 8)))
        for logit, target in zip(logits, piece[1:]):
            nats += np.log(np.exp(logit).sum()) - logit[target]
    assert tanh.evaluate_loss(weights, text, streams=streams) == pytest.approx(nats / (length - 1), rel=1e-9)


def test_the_losses_of_a_long_text_are_added_up_in_float64():
    weights = tanh.init_weights(65, 1, 1, np.random.default_rng(0))
    weights = {name: np.zeros_like(array) for name, array in weights.items()}
    assert tanh.evaluate_loss(weights, np.zeros(400_000, np.uint8)) == pytest.approx(np.log(np.float32(65)), rel=1e-7)


def test_log_softmax_is_exact_for_rows_of_large_numbers_far_from_each_other():
    log_p = relu.log_softmax(np.array([[5000, 5000], [-5000, -5001]], np.float32))
    assert log_p == pytest.approx(-np.log([[2, 2], [1 + 1 / math.e, 1 + math.e]]), rel=1e-6)


def draw(weights, length, temperature, rng, prime=""):
    return "".join(tanh.sample(weights, "\nabc", length, temperature, rng, prime))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_softmax_at_the_given_temperature(temperature):
    rng, weights = np.random.default_rng(0), network(tanh, 4, 8, 2)
    weights["by"] += [1.0, 0.0, -1.0, 0.5]
    logits, _, _ = tanh.forward(weights, util.one_hot(np.array([[2]]), 4, np.float64), np.zeros((2, 1, 8)))
    p = np.exp(logits[0] / temperature) / np.exp(logits[0] / temperature).sum()
    draws = [draw(weights, 1, temperature, rng, "b") for _ in range(3000)]
    counts = np.array([draws.count(character) for character in "\nabc"])
    chi_squared = ((counts - 3000 * p)**2 / (3000 * p)).sum()
    assert chi_squared < 16.27  # 3 degrees of freedom: exceeded once in a thousand by the right distribution


def test_near_a_temperature_of_0_the_likeliest_character_after_all_of_the_prime_and_of_the_sample_so_far_is_drawn():
    weights, text = network(tanh, 4, 8, 2), "abcabca"
    weights |= {name: 1e-9 * weights[name] for name in ("Why", "by")}  # it is likelier by next to nothing
    drawn = draw(weights, 10, 1e-300, np.random.default_rng(0), text)
    for character in drawn:
        indices = util.encode(text, "\nabc")
        logits, _, _ = tanh.forward(weights, util.one_hot(indices[:, None], 4, np.float64), np.zeros((2, 1, 8)))
        assert character == "\nabc"[logits[-1].argmax()]
        text += character


@pytest.mark.parametrize("vocabulary, first", [("\nabc", "\n"), ("\t\nab", "\n"), ("abcd", "a")])
def test_a_sample_without_a_prime_begins_as_after_a_newline_or_the_first_character_it_knows(vocabulary, first):
    weights = network(tanh, 4, 8, 2)
    without, *others = ("".join(tanh.sample(weights, vocabulary, 20, 1.0, np.random.default_rng(0), prime))
                        for prime in ["", *vocabulary])
    assert [character for character, text in zip(vocabulary, others) if text == without] == [first]


def test_a_sample_remembers_the_first_character_of_a_long_prime():
    weights = {"Wxh0": [[0], [1], [0], [0]], "Whh0": [[1]], "bh0": [0], "Why": [[0, 0, 0, 9]], "by": [0, 0, 1, 0]}
    weights = {name: np.array(array, np.float32) for name, array in weights.items()}  # once an a was read: c, else b
    for first, expected in ("a", "c"), ("b", "b"):
        prime = first + "b" * 2000
        assert "".join(relu.sample(weights, "\nabc", 1, 1e-6, np.random.default_rng(0), prime)) == expected
