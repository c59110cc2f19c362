"""Several seeds end to end on small scenes: each folder equals a single run's."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from segjax import data, models, train
from segjax.train import reproducibility, seed_runs
from tests.scenes import Around, dataset, experiment

SEEDS = (3, 0, 1, 7)


class Watched(Around):
    """Data that records the digest of each training batch, after calling `before`."""

    def __init__(self, inner, before=lambda number, batch: batch):
        super().__init__(inner)
        self.before, self.seen = before, []

    def train_batches(self, *, first_batch=0, **options):
        stream = self.inner.train_batches(first_batch=first_batch, **options)
        for number, batch in enumerate(stream, first_batch + 1):
            self.seen.append(reproducibility.batch_digest(batch))
            yield self.before(number, batch)


def made(seed, *, watched=None, **config):
    config = {"steps": 20, "eval_every": 8, "log_every": 4} | config
    found = experiment(
        seed=seed,
        model=models.SimpleCNN(num_classes=3, width=8),
        optimizer=train.with_ema(optax.sgd(0.1, momentum=0.9), decay=0.5),
        augment=data.augment.horizontal_flip,
        **config,
    )
    return found if watched is None else dataclasses.replace(found, data=watched)


def silent():
    return Console(file=io.StringIO(), width=100)


def train_all(run, *, resume=False, **config):
    experiments = [made(seed, **config) for seed in SEEDS]
    return train.train_seeds(experiments, run=run, resume=resume, console=silent())


def records(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in kept]


def last_state(run):
    like = train.abstract_state(
        made(0).model, made(0).optimizer, image_shape=(16, 16, 3)
    )
    with train.Checkpoints(run / "checkpoints", monitor="mean_iou") as kept:
        return kept.restore(kept.last, like)


def assert_same_run(a, b):
    assert records(a) == records(b)
    one, two = last_state(a), last_state(b)
    assert int(one.step) == 20
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, two.opt_state)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A single run of one of the seeds: folder, result and batches."""
    run = tmp_path_factory.mktemp("single") / "run"
    watched = Watched(made(1).data)
    result = train.train(made(1, watched=watched), run=run, console=silent())
    return run, result, watched.seen


@pytest.fixture(scope="module")
def all_seeds(tmp_path_factory):
    """All seeds in one program, and the printed text."""
    run = tmp_path_factory.mktemp("seeds") / "run"
    console = silent()
    experiments = [made(seed) for seed in SEEDS]
    results = train.train_seeds(experiments, run=run, console=console, flags={"a": 1})
    return run, results, console.file.getvalue()


def test_each_seed_equals_a_single_run_to_rounding(single, all_seeds):
    run, result, _ = single
    folder = all_seeds[0] / "seed-1"
    mine, own = last_state(folder), last_state(run)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (mine.params, mine.opt_state),
        (own.params, own.opt_state),
    )
    assert [r["step"] for r in records(folder)] == [r["step"] for r in records(run)]
    for one, other in zip(records(folder), records(run), strict=True):
        assert one.keys() == other.keys()
        assert one.get("loss") == pytest.approx(other.get("loss"), abs=1e-4)
    assert all_seeds[1][2]["metrics"] == pytest.approx(result["metrics"], abs=1e-3)


def test_batches_equal_those_of_a_single_run(single, tmp_path):
    watched = {seed: Watched(made(seed).data) for seed in SEEDS}
    experiments = [made(seed, watched=watched[seed]) for seed in SEEDS]
    train.train_seeds(experiments, run=tmp_path / "run", console=silent())
    assert watched[1].seen[:20] == single[2][:20]
    assert len({one.seen[0] for one in watched.values()}) == 4


def test_digests_equal_those_of_a_single_run(single, all_seeds):
    own, mine = (
        json.loads((run / "run.json").read_text())["digests"]
        for run in (single[0], all_seeds[0] / "seed-1")
    )
    for stream in ("initialization", "data", "augmentation"):
        assert own[stream] == mine[stream]


def test_each_folder_is_a_run(all_seeds):
    run, results, printed = all_seeds
    for seed, result in zip(SEEDS, results, strict=True):
        folder = run / f"seed-{seed}"
        assert json.loads((folder / "result.json").read_text()) == result
        assert result["seed"] == seed
        manifest = json.loads((folder / "run.json").read_text())
        assert manifest["flags"] == {"a": 1, "seed": seed}
        assert manifest["seeds_together"] == list(SEEDS)
        assert f"Seed {seed}  Epoch 2.67/6.67  loss" in printed
    assert len({json.dumps(r["metrics"]) for r in results}) == 4


def test_one_bar_and_the_lines_of_all_above_it(tmp_path):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    experiments = [made(seed, steps=2) for seed in (0, 1)]
    train.train_seeds(experiments, run=tmp_path / "run", console=console)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    lines = [x for x in re.split(r"[\r\n]", plain) if "Epoch" in x]
    assert [x[:13] for x in lines] == ["Seed 0  Epoch", "Seed 1  Epoch"]
    assert "Training" in plain


def test_one_folder_can_be_resumed_as_a_single_run(all_seeds, tmp_path):
    shutil.copytree(all_seeds[0] / "seed-7", tmp_path / "run")
    result = train.train(
        made(7, steps=24), run=tmp_path / "run", resume=True, console=silent()
    )
    assert result["steps"] == 24


@pytest.mark.slow
def test_a_signal_saves_all_seeds_and_resume_is_exact(all_seeds, tmp_path):
    def interrupt(number, batch):
        if number == 15:  # Read during step 14.
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    experiments = [made(seed) for seed in SEEDS]
    watched = Watched(experiments[2].data, interrupt)
    experiments[2] = made(SEEDS[2], watched=watched)
    run = tmp_path / "run"
    with pytest.raises(train.Stopped) as stopped:
        train.train_seeds(experiments, run=run, console=silent())
    assert stopped.value.step == 14  # Between two lines of the log.
    train_all(run, resume=True)
    for seed in SEEDS:
        assert_same_run(run / f"seed-{seed}", all_seeds[0] / f"seed-{seed}")


def test_resume_from_the_newest_step_that_all_have(all_seeds, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(all_seeds[0], run)
    for seed in SEEDS:  # As if killed while the last checkpoints were written.
        (run / f"seed-{seed}/result.json").unlink()
    shutil.rmtree(run / "seed-0/checkpoints/20")
    arrays = run / "seed-7/checkpoints/20/arrays"
    max(arrays.rglob("*"), key=lambda p: p.stat().st_size).write_bytes(b"")
    console = silent()
    train.train_seeds(
        [made(seed) for seed in SEEDS], run=run, resume=True, console=console
    )
    printed = console.file.getvalue()
    assert "seed-7/checkpoints/20 is damaged" in printed.replace("\n", "")
    assert "Continuing from the checkpoints of step 16." in printed
    for seed in SEEDS:
        assert_same_run(run / f"seed-{seed}", all_seeds[0] / f"seed-{seed}")


def test_resume_without_a_common_step(all_seeds, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(all_seeds[0], run)
    shutil.rmtree(run / "seed-3/checkpoints/16")
    for folder in (run / "seed-0/checkpoints").iterdir():
        if folder.name != "16":
            shutil.rmtree(folder)
    (run / "seed-3/checkpoints/20/checksums.json").unlink()
    with pytest.raises(ValueError, match=r"no step of which all.*seed-0 has 16"):
        train_all(run, resume=True)


def test_a_diverging_seed_is_named(tmp_path):
    def spoiled(number, batch):
        if number == 11:
            batch = batch | {"weight": np.full_like(batch["weight"], np.nan)}
        return batch

    experiments = [made(seed) for seed in SEEDS]
    watched = Watched(experiments[1].data, spoiled)
    experiments[1] = made(SEEDS[1], watched=watched)
    run = tmp_path / "run"
    with pytest.raises(train.SeedDivergedError, match="Seed 0: loss became nan at ste"):
        train.train_seeds(experiments, run=run, console=silent())
    for seed in SEEDS:
        state = last_state(run / f"seed-{seed}")
        assert int(state.step) == 8
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
        assert not (run / f"seed-{seed}/result.json").exists()


def test_equal_data_is_shared():
    scenes = dataset()
    shared = [made(seed, dataset_=scenes) for seed in (0, 1)]
    other = Watched(made(2).data)  # The same fingerprint, but other batches.
    experiments = [*shared, made(2, watched=other)]
    found = seed_runs.share_equal_data(experiments)
    assert found[0].data is found[1].data
    assert shared[0].data is not shared[1].data
    assert found[2].data is other


def test_messages(all_seeds, tmp_path):
    def call(*experiments, run=tmp_path / "run"):
        train.train_seeds(list(experiments), run=run, console=silent())

    with pytest.raises(ValueError, match=r"once, got \[1, 1\]"):
        call(made(1), made(1))
    with pytest.raises(ValueError, match="got none"):
        call()
    with pytest.raises(ValueError, match="differ in their seed only"):
        call(made(1), made(2, steps=30))
    with pytest.raises(ValueError, match="over 4 devices, got 6"):
        call(made(1, batch_size=6))
    with pytest.raises(ValueError, match="not empty"):
        call(made(1), run=all_seeds[0])
    with pytest.raises(ValueError, match="seed-9 has none"):
        train.train_seeds([made(9)], run=all_seeds[0], resume=True, console=silent())
    assert not (tmp_path / "run").exists()
