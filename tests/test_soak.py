"""The long soak: each model is killed 30 times, at random moments, and ends like a run that was never interrupted.

Run it with: python -m pytest tests/test_soak.py --soak
"""

import time

import pytest

from helpers import PER_EPOCH, RESUME, TINY, assert_same, begin, do, iteration, kill, outcome, posix, wait_until

KILLS, EPOCHS = 30, 120


def kill_somewhere(process, folder, model, start, rng):
    """Kill a run at a random moment: while it starts, or some updates later, at any point of an update or a write."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0, 1.5))
    else:
        moment = start + rng.randint(1, 60)
        wait_until(lambda: iteration(folder, model) >= moment, process)
        time.sleep(rng.uniform(0, 0.02))
    kill(process)


@posix
@pytest.mark.parametrize("model", ["tanh", "relu", "stirnn", "nprnn"])
def test_a_run_killed_thirty_times_ends_like_one_that_was_never_interrupted(model, text, tmp_path, rng, pytestconfig):
    if not pytestconfig.getoption("--soak"):
        pytest.skip("takes minutes: give --soak")
    words = [*TINY, "--epochs", EPOCHS, "--train", text]
    reference, folder = tmp_path / "reference", tmp_path / "killed"
    do(model, *words, "--out", reference)
    cut, starts = set(), []
    for _ in range(KILLS):
        start = iteration(folder, model)
        starts.append(start)
        more = ["--save-every", rng.choice([1, 1, 20]), "--out", folder]  # 1: half of the time goes into writing
        process = begin(model, *(["--resume", "--no-window"] if start else words), *more)
        kill_somewhere(process, folder, model, start, rng)
        assert start <= iteration(folder, model) < EPOCHS * PER_EPOCH
        cut |= {path.name for path in folder.glob("*.tmp")}  # what a write that was cut leaves behind
    assert cut, "no kill hit a write"
    print(f"checkpoints gone on from: {starts}; writes cut: {sorted(cut)}")
    do(model, *RESUME, folder)
    assert_same(outcome(folder, model), outcome(reference, model))
    assert list(folder.glob("*.tmp")) == []
