"""The training loop: what train() reads, computes, changes, validates, draws and keeps, update by update.

The scripts' own train() is run on a small text. What goes into and comes out of their functions is recorded.
"""

import copy
import functools
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

import graph
import nprnn
import relu
import stirnn
import tanh
import util

from helpers import ROOT, read_losses, train

pytestmark = pytest.mark.usefixtures("quick_pictures")
MODELS = [relu, stirnn]  # tanh and nprnn train by relu's loop (test_skeleton.py)
B, T, PER_EPOCH, EPOCHS, WARM_UP = 3, 5, 330, 2, 50
TOTAL = EPOCHS * PER_EPOCH
SMALL = f"--hidden-size 8 --depth 2 --batch-size {B} --seq-size {T} --epochs {EPOCHS} --no-window".split()
UNUSUAL = f"--dropout 0.3 --learning-rate 0.02 --decay 0.99 --epsilon 1e-3 --clip-norm 0.5 --warm-up {WARM_UP}".split()


def record(model, folder, *words):
    """Train, and return what each of the script's functions was called with and returned, call by call.

    A call is a namespace: of its arguments by name, as they were before it, its result, weights and caches after it,
    the number of updates before it, and what its random generator, if it has one, would have drawn first.
    """
    calls = {name: [] for name in ("init_weights", "dropout_masks", "forward_backward", "rmsprop", "evaluate_loss",
                                   "sample")}
    graphers = []

    def recorded(name, function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*arguments, **keywords):
            bound = signature.bind(*arguments, **keywords).arguments
            entry = SimpleNamespace(iteration=len(calls["rmsprop"]), **copy.deepcopy(bound))
            entry.draw = copy.deepcopy(bound["rng"]).random() if "rng" in bound else None
            result = function(*arguments, **keywords)
            result = list(result) if inspect.isgenerator(result) else result
            entry.result, entry.after = copy.deepcopy(result), copy.deepcopy(bound.get("weights"))
            entry.caches_after = copy.deepcopy(bound.get("caches"))
            calls[name].append(entry)
            return result
        return call

    def kept(*arguments):
        graphers.append(graph.Grapher(*arguments))
        return graphers[-1]

    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(model, name, recorded(name, getattr(model, name)))
        patch.setattr(model, "Grapher", kept)
        train(model, *SMALL, *words, "--out", folder)
    meta, arrays = util.read_checkpoint(folder / f"{model.MODEL}.npz", model.MODEL)
    _, rows = read_losses(folder, model.MODEL)
    rows = [{name: float(word or "nan") for name, word in row.items()} for row in rows]
    return SimpleNamespace(**calls, rows=rows, vocabulary=meta["vocabulary"], folder=folder, model=model,
                           grapher=graphers[0], weights=util.part(arrays, "weights"), best=util.part(arrays, "best"),
                           best_epoch=meta["best_epoch"])


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A text for EPOCHS epochs of PER_EPOCH batches, with some characters to spare, and a text to validate on.

    The second has characters of the first one in an order that it never has them in: learning more than how often each
    occurs does harm there.
    """
    folder = tmp_path_factory.mktemp("texts")
    text = (ROOT / "data" / "play.txt").read_text(encoding="utf-8")[1000:][:PER_EPOCH * B * T + B + 2]
    (folder / "train.txt").write_text(text, encoding="utf-8")
    (folder / "val.txt").write_text("".join(sorted(text[:800])), encoding="utf-8")
    return folder / "train.txt", folder / "val.txt"


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model.MODEL)
def run(request, texts, tmp_path_factory):
    train, val = texts
    words = [*UNUSUAL, *(["--beta", 0.25] if request.param is stirnn else [])]
    return record(request.param, tmp_path_factory.mktemp("run"), *words, "--train", train, "--val", val)


def decoded(run, indices):
    return "".join(run.vocabulary[index] for index in indices)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_epoch_reads_each_sequences_stretch_of_the_training_text_from_its_start_on(run, texts):
    text = texts[0].read_text(encoding="utf-8")
    assert len(run.forward_backward) == TOTAL
    for epoch in range(EPOCHS):
        updates = run.forward_backward[epoch * PER_EPOCH:][:PER_EPOCH]
        inputs = np.concatenate([update.inputs.argmax(axis=-1) for update in updates])
        targets = np.concatenate([update.targets for update in updates])
        for b in range(B):
            start = b * ((len(text) - 1) // B)
            assert decoded(run, inputs[:, b]) == text[start:start + PER_EPOCH * T]
            assert decoded(run, targets[:, b]) == text[start + 1:start + PER_EPOCH * T + 1]


def test_states_are_carried_from_batch_to_batch_and_zero_at_the_start_of_every_epoch(run):
    carried = None
    for update in run.forward_backward:
        if update.iteration % PER_EPOCH == 0:
            assert not update.states.any()
        else:
            assert np.array_equal(update.states, carried) and carried.any()
        carried = update.result[-1]
        carried[np.abs(carried).max(axis=-1) > 1000] = 0  # see the next test


@pytest.mark.parametrize("model", MODELS)
def test_a_state_that_ran_away_is_zero_for_the_next_batch_and_no_other_is(model, texts, tmp_path, monkeypatch):
    began, ended = [], []

    def run_away(*arguments):
        result = forward_backward(*arguments)
        result[-1][1, 2, 4], result[-1][0, 1, 3] = 1100, 900
        began.append(arguments[3].copy())
        ended.append(result[-1].copy())
        return result

    forward_backward = model.forward_backward
    monkeypatch.setattr(model, "forward_backward", run_away)
    train(model, *SMALL, "--epochs", 1, "--train", texts[0], "--val", texts[1], "--out", tmp_path)
    ended[0][1, 2] = 0
    assert (began[1] == ended[0]).all() and began[1][0, 1, 3] == 900


def test_every_update_drops_out_other_units_of_its_share(run):
    masks = [update.masks for update in run.forward_backward]
    assert all(np.isin(mask, np.float32([0, 1 / 0.7])).all() for mask in masks)
    assert np.mean([mask == 0 for mask in masks]) == pytest.approx(0.3, abs=0.01)
    assert len({mask.tobytes() for mask in masks}) == TOTAL
    assert all((mask != mask[:, :1]).any() for mask in masks)  # and every step


def test_every_update_is_a_step_of_rmsprop_with_its_own_gradients_and_the_runs_settings(run):
    for update, step in zip(run.forward_backward, run.rmsprop, strict=True):
        assert same(update.weights, step.weights) and same(update.result[-2], step.grads)
        assert (step.decay, step.epsilon, step.clip_norm) == (0.99, 1e-3, 0.5)
        assert step.weight_decay == run.model.SETTINGS["weight_decay"][0]
    assert not any(cache.any() for cache in run.rmsprop[0].caches.values())
    assert any(cache.any() for cache in run.rmsprop[1].caches.values())
    for step, following in zip(run.rmsprop, run.rmsprop[1:]):
        assert same(following.caches, step.caches_after)


def test_the_rate_rises_in_the_warm_up_and_falls_to_nothing_at_the_end(run):
    rates = np.array([step.rate for step in run.rmsprop])
    rise = np.minimum(np.arange(1, TOTAL + 1) / WARM_UP, 1)
    assert rates == pytest.approx(0.02 * rise * (1 - np.arange(TOTAL) / TOTAL), rel=1e-6)


def test_nothing_but_rmsprop_changes_the_weights(run):
    assert same(run.rmsprop[0].weights, run.init_weights[0].result)
    for step, weights in zip(run.rmsprop, [step.weights for step in run.rmsprop[1:]] + [run.weights]):
        assert same(weights, step.after)


def test_validation_reads_the_validation_text_at_the_start_early_and_after_every_epoch(run, texts):
    text = texts[1].read_text(encoding="utf-8")
    due = sorted({0, 100, 300, *range(PER_EPOCH, TOTAL + 1, PER_EPOCH)})
    assert [validation.iteration for validation in run.evaluate_loss] == due
    assert all(decoded(run, validation.text) == text for validation in run.evaluate_loss)
    losses = {row["iteration"]: row["validation_loss"] for row in run.rows if row["validation_loss"] > 0}
    assert losses == pytest.approx({validation.iteration: validation.result for validation in run.evaluate_loss})


def test_with_every_validation_comes_a_sample_of_the_same_network(run):
    content = (run.folder / f"{run.model.MODEL}.txt").read_text(encoding="utf-8")
    for validation, sample in zip(run.evaluate_loss, run.sample, strict=True):
        assert sample.iteration == validation.iteration
        network = run.rmsprop[sample.iteration].weights if sample.iteration < TOTAL else run.weights
        assert same(sample.weights, network) and same(validation.weights, network)
        assert sample.vocabulary == run.vocabulary and len(sample.result) >= 100
        assert sample.temperature == util.OPTIONS["temperature"][0]
        assert f"iteration {sample.iteration:,}, validation loss {validation.result:.3f}\n{''.join(sample.result)}\n" \
            in content


def test_a_sample_does_not_change_the_masks_that_come_after_it(run):
    rng = copy.deepcopy(run.dropout_masks[0].rng)
    for masks in run.dropout_masks:
        assert np.array_equal(run.model.dropout_masks(masks.shape, masks.rate, rng), masks.result)


def test_the_best_network_is_that_of_the_lowest_validation_loss(run):
    best = min(run.evaluate_loss, key=lambda validation: validation.result)
    assert best is not run.evaluate_loss[-1], "the losses of this run do not show the difference"
    assert same(run.best, best.weights) and run.best_epoch == best.iteration / PER_EPOCH


def test_the_losses_have_a_row_at_every_validation_and_every_10_updates_as_epochs_are_short(run):
    due = sorted({*range(0, TOTAL + 1, 10), *[validation.iteration for validation in run.evaluate_loss]})
    assert [row["iteration"] for row in run.rows] == due
    assert [row["epoch"] for row in run.rows] == pytest.approx([iteration / PER_EPOCH for iteration in due])


@pytest.mark.parametrize("per_epoch, at_first", [(1150, 100), (90, 10)], ids=["long epochs", "short epochs"])
def test_in_long_epochs_and_after_1000_updates_the_losses_have_a_row_every_100_updates(per_epoch, at_first, tmp_path):
    for name, size in ("train", per_epoch + 1), ("val", 20):
        (tmp_path / f"{name}.txt").write_text(("to be or not " * 100)[:size], encoding="utf-8")
    words = "--hidden-size 1 --depth 1 --batch-size 1 --seq-size 1 --no-window --quiet --save-every 1000000".split()
    epochs = math.ceil(1150 / per_epoch)
    train(relu, *words, "--epochs", epochs, "--train", tmp_path / "train.txt", "--val", tmp_path / "val.txt",
          "--out", tmp_path)
    due = [update for update in range(epochs * per_epoch + 1)
           if 0 in (update % per_epoch, update % (at_first if update < 1000 else 100))]
    assert [int(row["iteration"]) for row in read_losses(tmp_path)[1]] == due


def test_the_training_loss_is_the_mean_of_the_last_updates(run):
    losses = [update.result[0] for update in run.forward_backward]
    for row in run.rows[1:]:
        end = int(row["iteration"])
        assert row["train_loss"] == pytest.approx(np.mean(losses[max(end - PER_EPOCH // 10, 0):end]), rel=1e-6)


def test_the_penalty_is_that_of_the_last_update_with_the_runs_beta_and_stirnns_alone(run):
    assert run.model is relu or {update.beta for update in run.forward_backward} == {0.25}
    for row in run.rows[1:]:
        _, *penalty, _, _ = run.forward_backward[int(row["iteration"]) - 1].result
        assert [row["penalty"]] == pytest.approx(penalty) if penalty else np.isnan(row["penalty"])


def test_the_plot_shows_the_last_losses_when_training_ends(run):
    assert run.grapher.train.get_xdata()[-1] == run.grapher.validation.get_xdata()[-1] == EPOCHS
    assert (run.folder / f"{run.model.MODEL}.png").exists()


def test_what_the_plot_has_to_tell_is_told_by_the_run_which_ends_its_progress_line_before(run):
    assert run.grapher.warn.__func__ is util.Run.warn


# Other runs ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.1, 0.45])
def test_a_short_run_warms_up_for_its_share_of_the_updates_but_at_least_a_hundred(share, texts, tmp_path):
    run = record(relu, tmp_path, "--train", texts[1], "--epochs", 20, "--warm-up", 10**9, "--warm-up-share", share)
    rates = np.array([step.rate for step in run.rmsprop])
    rise, fall = np.arange(1, len(rates) + 1) / max(100, share * len(rates)), 1 - np.arange(len(rates)) / len(rates)
    assert 0.45 * len(rates) > 100 and 0.1 * len(rates) < 100
    assert rates == pytest.approx(0.01 * np.minimum(1, rise) * fall)


def test_another_seed_draws_other_weights_dropout_and_samples(texts, tmp_path):
    runs = [record(relu, tmp_path / str(seed), "--train", texts[1], "--seed", seed) for seed in (1, 2)]
    draws = [calls[0].draw for run in runs for calls in (run.init_weights, run.dropout_masks, run.sample)]
    assert len(set(draws)) == 6


@pytest.mark.parametrize("model", [tanh, relu, stirnn, nprnn], ids=lambda model: model.MODEL)
def test_a_network_learns_a_sentence_by_heart(model, tmp_path):
    sentence = "to ring a bell is to ask the sea a question. "
    for name, repetitions in ("train", 200), ("val", 20):
        (tmp_path / name).write_text(sentence * repetitions, encoding="utf-8")
    train(model, "--train", tmp_path / "train", "--val", tmp_path / "val", "--hidden-size", 64, "--depth", 2,
          "--epochs", 4, "--batch-size", 4, "--seq-size", 45, "--no-window", "--out", tmp_path)
    meta, arrays = util.read_checkpoint(tmp_path / f"{model.MODEL}.npz", model.MODEL)
    drawn = model.sample(util.part(arrays, "weights"), meta["vocabulary"], 90, 0.1, np.random.default_rng(0), sentence)
    assert meta["validation_loss"] < 0.1 and "".join(drawn) == 2 * sentence
