"""Every gradient of every model against central differences in float64."""

import numpy as np
import pytest

import nprnn
import relu
import stirnn
import tanh
import util

MODELS = [tanh, relu, stirnn, nprnn]
T, B, V, H, D = 7, 3, 5, 6, 3


def problem(model, seed=0, dtype=np.float64):
    """Return weights with random biases, inputs, targets, a carried state and dropout masks, all fixed."""
    rng = np.random.default_rng(seed)
    weights = model.init_weights(V, H, D, rng, dtype)
    for name, array in weights.items():
        array += rng.normal(0, 0.3, array.shape)  # so that no ReLU sits on its kink
    text = rng.integers(0, V, (T + 1, B))
    masks = model.dropout_masks((D, T, B, H), 0.4, rng, dtype)
    return weights, util.one_hot(text[:-1], V, dtype), text[1:], rng.uniform(0.1, 1, (D, B, H)).astype(dtype), masks


def objective(result):
    """Return what is minimised: cross-entropy, and STIRNN's penalty."""
    return result[0] + result[1] if len(result) == 4 else result[0]


def numeric_gradient(model, weights, name, arguments, step=1e-5):
    numeric = np.zeros_like(weights[name])
    for index in np.ndindex(numeric.shape):
        value = weights[name][index]
        weights[name][index] = value + step
        above = objective(model.forward_backward(weights, *arguments))
        weights[name][index] = value - step
        numeric[index] = (above - objective(model.forward_backward(weights, *arguments))) / (2 * step)
        weights[name][index] = value
    return numeric


def worst_error(model, case):
    """Return the largest relative error in norm over all arrays of weights."""
    weights, *arguments = case
    grads = model.forward_backward(weights, *arguments)[-2]
    assert grads.keys() == weights.keys()
    errors = []
    for name in weights:
        numeric = numeric_gradient(model, weights, name, arguments)
        errors.append(np.linalg.norm(grads[name] - numeric) / max(np.linalg.norm(numeric), 1e-12))
    return max(errors)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)
@pytest.mark.parametrize("dropout", [True, False])
def test_every_gradient_agrees_with_central_differences(model, dropout):
    case = problem(model)
    assert worst_error(model, case if dropout else (*case[:4], None)) <= 1e-6


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)
@pytest.mark.parametrize("fault", ["Wxh0", "Whh1", "bh2", "Why", "by"])
def test_a_wrong_sign_in_any_array_is_caught(model, fault, monkeypatch):
    correct = model.forward_backward

    def faulty(*arguments):
        result = correct(*arguments)
        result[-2][fault].flat[-1] *= -1
        return result
    monkeypatch.setattr(model, "forward_backward", faulty)
    assert worst_error(model, problem(model)) > 1e-6


@pytest.mark.parametrize("line, mutant", [
    ("dnorms[:-1] -= growth[1:]", "dnorms[:-1] += growth[1:]"),
    ("dnorms[:-1] -= growth[1:]", "dnorms[:-1] -= growth[1:]; dnorms[-1] = 0"),
    ("dnorms *= 2 * BETA / growth.size", "dnorms *= 2 * BETA / len(growth)"),
    ("dlogits[target] -= 1", "dlogits[target] += 1"),
    ("np.add(dzWhhT[:B], dh_t", "np.subtract(dzWhhT[:B], dh_t"),
    ("dz_t *= slope_t", "dz_t *= 1"),
    ("dx.reshape(T, B, -1) * masks[d]", "dx.reshape(T, B, -1)"),
])
def test_a_fault_in_the_backward_pass_is_caught(line, mutant):
    with open(stirnn.__file__, encoding="utf-8") as file:
        source = file.read()
    assert source.count(line) == 1
    faulty = type(stirnn)("faulty")
    exec(source.replace(line, mutant), vars(faulty))
    assert worst_error(faulty, problem(faulty)) > 1e-6


def test_the_stabiliser_is_the_mean_squared_growth_of_the_norms_from_the_given_state_on():
    h = np.random.default_rng(1).uniform(0, 1, (T + 1, B, H))
    norms = np.linalg.norm(h, axis=-1)
    expected = stirnn.BETA * np.mean([(norms[t] - norms[t - 1])**2 for t in range(1, T + 1)])
    assert stirnn.stabiliser(h)[0] == pytest.approx(expected, rel=1e-12)


def test_the_stabilisers_gradient_is_zero_where_a_norm_is_zero():
    h = np.ones((T + 1, B, H))
    h[3] = 0
    penalty, gradient = stirnn.stabiliser(h)
    assert penalty > 0 and np.isfinite(gradient).all()
    assert not gradient[2].any() and gradient[1].any()  # the first entry is that of h(1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)
def test_float32_and_float64_give_the_same_gradients_up_to_rounding(model):
    double = problem(model)
    single = [{name: array.astype(np.float32) for name, array in double[0].items()}]
    single += [part if part.dtype.kind in "iu" else part.astype(np.float32) for part in double[1:]]
    for grads, dtype in ((model.forward_backward(*single)[-2], np.float32),
                         (model.forward_backward(*double)[-2], np.float64)):
        assert {grad.dtype for grad in grads.values()} == {np.dtype(dtype)}
    for name, grad in model.forward_backward(*double)[-2].items():
        assert np.allclose(model.forward_backward(*single)[-2][name], grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.MODEL)
def test_two_threads_give_the_same_losses_and_gradients_up_to_rounding(model, monkeypatch):
    rng = np.random.default_rng(3)
    weights = model.init_weights(65, 256, 2, rng)
    text, states = rng.integers(0, 65, (101, 10)), np.zeros((2, 10, 256), np.float32)
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(util, "threads", threads)
        results.append(model.forward_backward(weights, util.one_hot(text[:-1], 65), text[1:], states))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, grad in results[0][-2].items():
        assert np.linalg.norm(grad - results[1][-2][name]) <= 1e-4 * np.linalg.norm(grad)
