"""Every gradient of every model against central differences in float64, whole and from two halves of the sequences."""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import relu
import stirnn
import util

from helpers import each_model, of

T, B, V, H, D = 5, 3, 4, 5, 3


def problem(model, T=T, B=B, V=V, H=H, D=D):
    """Return weights with random biases, inputs, targets, a carried state and dropout masks in float64, all fixed."""
    rng = np.random.default_rng(0)
    weights = of(model, "init_weights")(V, H, D, rng, dtype=np.float64)
    for array in weights.values():
        array += rng.normal(0, 0.3 if H < 10 else 0.01, array.shape)  # so that no ReLU sits on its kink
    text = rng.integers(0, V, (T + 1, B))
    masks = model.dropout_masks((D, T, B, H), 0.4, rng, np.float64)
    return weights, util.one_hot(text[:-1], V, np.float64), text[1:], rng.uniform(0.1, 1, (D, B, H)), masks


def worst_error(model, case):
    """Return the largest relative error in norm of all gradients of what is minimised: loss and STIRNN's penalty."""
    weights, *arguments = case

    def objective():
        *terms, _, _ = of(model, "forward_backward")(weights, *arguments)
        return sum(terms)

    *_, grads, _ = of(model, "forward_backward")(weights, *arguments)
    assert grads.keys() == weights.keys()
    errors, step = [], 1e-5
    for name, array in weights.items():
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + step
            above = objective()
            array[index] = value - step
            numeric[index] = (above - objective()) / (2 * step)
            array[index] = value
        errors.append(np.linalg.norm(grads[name] - numeric) / max(np.linalg.norm(numeric), 1e-12))
    return max(errors)


@each_model
def test_every_gradient_agrees_with_central_differences(model):
    assert worst_error(model, problem(model)) <= 1e-6


def test_one_entry_of_a_gradient_with_the_wrong_sign_is_caught(monkeypatch):
    correct, case = stirnn.forward_backward, problem(stirnn)

    @functools.wraps(correct)
    def faulty(*arguments, **settings):
        result = correct(*arguments, **settings)
        result[-2]["bh1"][-1] *= -1
        return result
    monkeypatch.setattr(stirnn, "forward_backward", faulty)
    assert worst_error(stirnn, case) > 1e-6


def test_the_penalty_is_beta_times_the_sum_over_layers_of_the_mean_squared_growth_of_norms_from_the_given_state_on():
    weights, inputs, targets, states, masks = problem(stirnn)
    _, penalty, _, _ = of(stirnn, "forward_backward", beta=0.3)(weights, inputs, targets, states, masks)
    norms = np.linalg.norm(stirnn.forward(weights, inputs, states, masks)[2], axis=-1)
    expected = 0.3 * sum(np.mean([(layer[t] - layer[t - 1])**2 for t in range(1, T + 1)]) for layer in norms)
    assert penalty == pytest.approx(expected, rel=1e-12)


def test_the_stabilisers_gradient_is_zero_where_a_norm_is_zero():
    h = np.ones((T + 1, B, H))
    h[3] = 0
    penalty, gradient = stirnn.stabiliser(h, 0.3)
    assert penalty > 0 and np.isfinite(gradient).all()
    assert not gradient[2].any() and gradient[1].any()  # the first entry is that of h(1)


@each_model
def test_float32_gives_the_same_gradients_as_float64_up_to_rounding(model):
    double = problem(model)
    single = [{name: array.astype(np.float32) for name, array in double[0].items()}]
    single += [part if part.dtype.kind in "iu" else part.astype(np.float32) for part in double[1:]]
    *_, exact, _ = of(model, "forward_backward")(*double)
    *_, rounded, _ = of(model, "forward_backward")(*single)
    for name, grad in rounded.items():
        assert grad.dtype == np.float32 and exact[name].dtype == np.float64
        assert np.allclose(grad, exact[name], rtol=1e-3, atol=1e-5)


def in_halves(model, case):
    """Return losses, gradients and states, by name, from both halves of the sequences."""
    function = of(model, "forward_backward")
    return named(util.in_halves(function.func, *case, *function.keywords.values()))


def named(result):
    *terms, grads, states = result
    return {**grads, "states": states, **{f"term {i}": np.asarray(term) for i, term in enumerate(terms)}}


@each_model
@pytest.mark.parametrize("batch", [1, 5])  # which has no halves, and none of one size
def test_the_halves_of_the_sequences_give_what_the_whole_gives_up_to_rounding(model, batch):
    case = problem(model, B=batch, V=65, H=200, D=2)
    whole, halves = named(of(model, "forward_backward")(*case)), in_halves(model, case)
    assert whole.keys() == halves.keys()
    for name, array in whole.items():
        assert halves[name].shape == array.shape, name
        assert np.linalg.norm(halves[name] - array) <= 1e-10 * np.linalg.norm(array), name


@each_model
def test_not_a_bit_of_the_result_depends_on_the_number_of_cores(model, monkeypatch):
    case = problem(model, B=5, V=65, H=200, D=2)
    results = []
    for cores in 1, 2, 64:
        monkeypatch.setattr(util, "CORES", cores)
        results.append({name: array.tobytes() for name, array in in_halves(model, case).items()})
    assert results[0] == results[1] == results[2]


def meet(weights, inputs, targets, states, masks, folder, patience):
    """Wait for another process that computes too, and return its own number, in the place of the loss and states."""
    Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + patience
    while len(os.listdir(folder)) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return len(os.listdir(folder)), {}, np.full_like(states, os.getpid(), np.int64)


@pytest.mark.parametrize("batch, H, cores, processes", [(10, 64, 2, 2), (10, 64, 1, 1), (1, 64, 2, 1), (10, 63, 2, 1)])
def test_the_halves_are_computed_side_by_side_where_there_are_two_cores_and_the_network_is_no_small_one(
        batch, H, cores, processes, monkeypatch, tmp_path):
    monkeypatch.setattr(util, "CORES", cores)
    case = problem(relu, B=batch, H=H, D=1)
    there, _, states = util.in_halves(meet, *case, tmp_path, 20 if processes == 2 else 0.1)
    assert there == processes and set(states[:, :batch // 2].ravel()) <= {os.getpid()}
    assert len(set(states[:, batch // 2:].ravel()) - {os.getpid()}) == processes - 1


def in_shared_memory(array):
    """Return whether an array is a view of shared memory; one that came through a pipe is of bytes of its own."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", None), ctypes.Array)


def handed_over(weights, inputs, targets, states, masks):
    """Return, in the place of the states, how many of the arrays came through a pipe or are not aligned."""
    arrays = [*weights.values(), inputs, targets, states, masks]
    good = [in_shared_memory(array) and array.flags.aligned for array in arrays]
    return 0, {}, np.full_like(states, good.count(False))


def test_the_second_process_gets_all_arrays_by_shared_memory_and_aligned(monkeypatch):
    monkeypatch.setattr(util, "CORES", 2)
    weights, inputs, targets, *rest = problem(relu, T=7, B=7, H=65)
    _, _, states = util.in_halves(handed_over, weights, inputs, targets.astype(np.uint8), *rest)
    assert np.all(states[:, 3:] == 0)


def test_the_gradients_of_the_second_process_come_back_by_shared_memory_too(monkeypatch):
    plain, shared = util.receive, []

    def receive(connection, memory):
        loss, grads, states = plain(connection, memory)
        shared.extend(map(in_shared_memory, grads.values()))
        return loss, grads, states
    monkeypatch.setattr(util, "CORES", 2)
    monkeypatch.setattr(util, "receive", receive)
    in_halves(relu, problem(relu, H=65))
    assert shared and all(shared)


@pytest.mark.parametrize("why", ["no more processes", "under a debugger"])
def test_where_no_second_process_can_start_the_first_does_it_all_and_hears_ctrl_c(why, monkeypatch):
    monkeypatch.setattr(util, "CORES", 2)
    if why == "under a debugger":
        monkeypatch.delattr(sys.modules["__main__"], "__spec__")  # as python -m pdb has it
    else:
        monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", mock.Mock(side_effect=OSError(why)))
    util.second_process.cache_clear()
    before, case = signal.getsignal(signal.SIGINT), problem(relu, V=65, H=200, D=2)
    assert in_halves(relu, case).keys() == named(relu.forward_backward(*case)).keys()
    assert signal.getsignal(signal.SIGINT) == before != signal.SIG_IGN


def computes_or_ends(weights, inputs, targets, states, masks, process):
    """Compute in that process, and end any other."""
    if os.getpid() != process:
        os._exit(1)
    return relu.forward_backward(weights, inputs, targets, states, masks)


def test_nothing_is_lost_when_the_second_process_ends_in_the_midst_of_an_update(monkeypatch):
    case, results = problem(relu, V=65, H=200, D=2), []
    for cores in 1, 2:
        monkeypatch.setattr(util, "CORES", cores)
        loss, grads, states = util.in_halves(computes_or_ends, *case, os.getpid())
        results.append({"loss": loss.tobytes(), "states": states.tobytes(), "Whh0": grads["Whh0"].tobytes()})
    util.second_process.cache_clear()
    assert results[0] == results[1]


def test_nothing_is_lost_when_somebody_ends_the_second_process(monkeypatch):
    monkeypatch.setattr(util, "CORES", 2)
    case = problem(relu, V=65, H=200, D=2)
    before = in_halves(relu, case)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    after = in_halves(relu, case)
    util.second_process.cache_clear()
    assert {name: array.tobytes() for name, array in before.items()} == \
        {name: array.tobytes() for name, array in after.items()}


def test_where_the_second_process_would_not_find_the_script_the_first_does_it_all(monkeypatch):
    monkeypatch.setattr(util, "CORES", 2)
    function, case = relu.forward_backward, problem(relu, V=65, H=200, D=2)
    expected = in_halves(relu, case)
    monkeypatch.setattr(relu, "forward_backward", None)  # as under a debugger, whose __main__ is not the script
    assert all(map(np.array_equal, named(util.in_halves(function, *case)).values(), expected.values()))
