"""Training that is killed again and again ends as training that never was.

Every kill is of a real process, at a moment drawn at random: while it starts, while it
trains (in the middle of an epoch, between two lines of the log), or while it writes a
checkpoint. The uninterrupted run is compared bit for bit.
"""

import json
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import cli, train
from segjax.cli import scripts
from tests.faults.conftest import METHODS, checkpoint_steps, lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # On a busy machine.

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
EPOCH = 9  # Updates: 36 training images, 4 at once.
ORDERLY = [("train", TERM), ("train", INT)]
HARD = [("train", KILL), ("save", KILL)]
PLANS = {
    0: [*ORDERLY * 3, *HARD * 3, ("start", KILL), ("start", TERM)],
    2: [*ORDERLY * 2, *HARD * 2],
}


def test_there_are_enough_kills():
    kills = [kill for plan in PLANS.values() for kill in plan]
    assert len(kills) >= 20
    assert {signum for _, signum in kills} == {TERM, INT, KILL}


@pytest.fixture(scope="module")
def experiment(script, folder):
    return scripts.load(script)(source=folder / "source")


def kill(training, when, signum, rng):
    """Kills it at such a moment. Returns the exit code and what it said."""
    if when == "start":
        time.sleep(rng.uniform(0.2, 3))
        training.send(signum)
    elif when == "save":
        assert training.stop_while_saving(), training.output
        training.send(signum)
    else:
        assert training.wait_until(training.trains), training.output
        time.sleep(rng.uniform(0, 0.5))
        # Ctrl-C in a terminal reaches the reader processes too.
        (training.send_to_all if signum == INT else training.send)(signum)
    return training.end()


@pytest.mark.parametrize("workers", PLANS)
def test_killed_again_and_again(workers, start, whole, folder, experiment, tally):
    rng = np.random.default_rng(workers)
    plan = [PLANS[workers][i] for i in rng.permutation(len(PLANS[workers]))]
    run = folder / f"killed-{workers}"
    flags = ("--num-workers", str(workers))
    stopped_at = []
    for when, signum in plan:
        newest = max(checkpoint_steps(run), default=None)
        training = start(run, *flags, env={"STEP_SECONDS": "0.02"})
        tally.case("kill, train of 240 steps")
        code = kill(training, when, signum, rng)
        if when == "start":
            assert code in (-signum, 128 + signum), training.output
            tally.count("right")
            continue
        assert code == (-KILL if signum == KILL else 128 + signum), training.output
        if newest is not None:
            assert training.first_step == newest, training.output
        assert "damaged" not in training.output
        if when == "save":
            assert list((run / "checkpoints").glob("*.part"))
        if signum != KILL:
            said = re.search(r"^stopped by .* at step (\d+);", training.output, re.M)
            assert checkpoint_steps(run)[-1] == int(said[1]), training.output
            stopped_at.append(int(said[1]))
        tally.count("right")
    assert any(step % EPOCH for step in stopped_at)
    last = start(run, *flags)
    assert last.end() == 0, last.output
    assert last.resumes
    assert_same(run, whole, experiment, folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_method_ends_the_same(method, start, script, folder, tally):
    """State that the step itself added, `extra`, is as well kept as the rest."""
    has_extra = method in ("mean_teacher", "two_optimizers")
    steps = 120 if has_extra else 60
    flags = ("--method", method, "--steps", str(steps))
    made = scripts.load(script)(source=folder / "source", method=method, steps=steps)
    whole, run = folder / f"{method}-whole", folder / f"{method}-killed"
    training = start(whole, *flags)
    assert training.end() == 0, training.output
    rng = np.random.default_rng(0)
    for when, signum in HARD if has_extra else HARD[:1]:
        training = start(run, *flags, env={"STEP_SECONDS": "0.02"})
        tally.case("kill, train of other methods")
        assert kill(training, when, signum, rng) == -KILL, training.output
        tally.count("right")
    last = start(run, *flags)
    assert last.end() == 0, last.output
    assert last.resumes
    extra = state_of(run, checkpoint_steps(run)[-1], made).extra
    assert (extra is not None) == has_extra
    assert_same(run, whole, made, folder)


def assert_same(run, whole, experiment, folder):
    results = [json.loads((r / "result.json").read_text()) for r in (run, whole)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    assert lines(run) == lines(whole)
    for step in {results[0]["best_step"], checkpoint_steps(whole)[-1]}:
        one, two = (state_of(r, step, experiment) for r in (run, whole))
        paths = jax.tree_util.tree_flatten_with_path(two)[0]
        for a, (path, b) in zip(jax.tree.leaves(one), paths, strict=True):
            name = jax.tree_util.keystr(path)
            np.testing.assert_array_equal(bits(a), bits(b), err_msg=name)
    assert predictions(run, folder) == predictions(whole, folder)


def state_of(run, step, experiment):
    spec = train.data_spec(experiment.data)
    like = train.abstract_state_of(experiment, spec)
    with train.Checkpoints(run / "checkpoints", monitor="mean_iou") as checkpoints:
        return checkpoints.restore(step, like)


def bits(array):
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).reshape(-1).view(np.uint8)


def predictions(run, folder):
    """The bytes of every picture that the command writes, three for each image."""
    out = folder / f"{run.name}-predictions"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGJAX_DATA_DIR", str(folder / "prepared"))
        images = str(folder / "source/images")
        with pytest.raises(SystemExit) as exit_:
            cli.main(["predict", str(run), images, "--out", str(out)])
    assert not exit_.value.code
    written = {p.name: p.read_bytes() for p in out.glob("*.png")}
    assert len(written) == 120
    return written


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_second_signal_leaves_at_once(signum, start, folder, tally):
    """Also while a checkpoint is written, which here takes five minutes."""
    run = folder / f"twice-{signum}"
    training = start(run, env={"SAVE_SECONDS": "300", "STEP_SECONDS": "0.02"})
    assert training.wait_until(training.saves), training.output
    tally.case("kill, train while it saves for minutes")
    training.send(signum)
    time.sleep(0.5)
    assert training.process.poll() is None, training.output
    asked = time.monotonic()
    training.send(signum)
    assert training.end() == -signum
    assert time.monotonic() - asked < 5
    tally.count("right")
