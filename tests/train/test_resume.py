"""Resuming with damaged or missing checkpoints, changed data, or another process."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import optax
import pytest

from segjax import models, train
from tests.scenes import dataset, experiment
from tests.train.test_loop import records, silent

EVERY = 3


def config():
    return experiment(steps=4 * EVERY, eval_every=EVERY)


def lines(run):
    return [
        {k: v for k, v in record.items() if k != "images_per_second"}
        for record in records(run)
    ]


def final_state(run):
    made = config()
    like = train.abstract_state(made.model, made.optimizer, image_shape=(16, 16, 3))
    with train.Checkpoints(run / "checkpoints", monitor="mean_iou") as checkpoints:
        return checkpoints.restore(4 * EVERY, like)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train.train(config(), run=run, console=silent())
    return run


@pytest.fixture
def run(uninterrupted, tmp_path):
    return shutil.copytree(uninterrupted, tmp_path / "run")


def resume(run):
    console = silent()
    train.train(config(), run=run, resume=True, console=console)
    return console.file.getvalue().splitlines()


def assert_same(run, uninterrupted):
    assert lines(run) == lines(uninterrupted)
    one, two = final_state(run), final_state(uninterrupted)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, two.opt_state)


def test_a_damaged_checkpoint_is_named_and_the_result_is_equal(run, uninterrupted):
    kept = train.Checkpoints(run / "checkpoints", monitor="mean_iou")
    newest, before = kept.steps[-1], kept.steps[-2]
    kept.close()
    path = run / f"checkpoints/{newest}/arrays/state/_METADATA"
    os.truncate(path, 100)
    said = resume(run)
    assert said[0].startswith(f"{run}/checkpoints/{newest} is damaged: ")
    assert "arrays/state/_METADATA has 100 bytes of" in said[0]
    assert said[0].endswith("; it is not used.")
    assert said[1] == f"Continuing from the checkpoint of step {before}."
    assert_same(run, uninterrupted)


def test_without_an_intact_checkpoint_resume_is_an_error(run):
    for path in run.glob("checkpoints/*/checksums.json"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"no intact .* checksums.json is missing; .*St"
    ):
        resume(run)


def test_a_run_killed_before_its_first_checkpoint_restarts(run, uninterrupted):
    shutil.rmtree(run / "checkpoints")
    # Nothing else was written by then.
    (run / "metrics.jsonl").unlink()
    (run / "result.json").unlink()
    assert resume(run)[0].endswith("ended before its first checkpoint; restarting.")
    assert_same(run, uninterrupted)


def test_a_run_that_another_process_trains_is_refused(run, uninterrupted):
    before = (run / "run.json").read_bytes()
    with train.locked(run):
        with pytest.raises(ValueError, match=f"written by process {os.getpid()} on"):
            resume(run)
    assert (run / "run.json").read_bytes() == before
    assert lines(run) == lines(uninterrupted)


def worse_and_worse(**parts):
    """An experiment whose loss grows, so its first evaluation is the best."""
    return experiment(
        optimizer=optax.sgd(-0.05), monitor="loss", mode="min",
        steps=4 * EVERY, eval_every=EVERY, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_finished_run_whose_best_is_not_its_last_can_be_resumed(tmp_path, seeds):
    """Simulates a kill between the last checkpoint and result.json."""
    made = [worse_and_worse(seed=seed) for seed in range(seeds)]

    def run(**options):
        if seeds > 1:
            return train.train_seeds(made, run=tmp_path, console=silent(), **options)
        return [train.train(made[0], run=tmp_path, console=silent(), **options)]

    first = run()
    for path in tmp_path.rglob("result.json"):
        path.unlink()
    again = run(resume=True)
    assert [r["best_step"] for r in again] == [EVERY] * seeds
    assert [r["metrics"] for r in again] == [r["metrics"] for r in first]


def test_a_refused_resume_changes_nothing(run):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    wider = dataclasses.replace(
        config(), model=models.SimpleCNN(num_classes=3, width=32)
    )
    with pytest.raises(ValueError, match="another model or optimizer"):
        train.train(wider, run=run, resume=True, console=silent())
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert after == before | {run / "lock": (run / "lock").read_bytes()}


def test_an_error_before_training_leaves_the_folder_usable(tmp_path):
    with pytest.raises(ValueError, match="monitor needs one of"):
        train.train(
            experiment(monitor="mean_oui"), run=tmp_path / "run", console=silent()
        )
    train.train(experiment(steps=1), run=tmp_path / "run", console=silent())


def files(run):
    return {
        p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"
    }


def refused(run, match, **options):
    """Asserts that resuming raises an error that matches, and changes nothing."""
    before = files(run)
    made = options.pop("experiment", config())
    with pytest.raises(ValueError, match=match) as error:
        train.train(made, run=run, resume=True, console=silent(), **options)
    assert "\n" not in str(error.value)
    assert files(run) == before


@pytest.mark.parametrize("kept", ["metrics.jsonl", "result.json"])
def test_lost_checkpoints_are_not_trained_over(run, kept):
    shutil.rmtree(run / "checkpoints")
    for name in {"metrics.jsonl", "result.json"} - {kept}:
        (run / name).unlink()
    refused(run, "checkpoints has no checkpoint, but .* has been trained")


def test_killed_while_it_first_saved_a_run_starts_over(run, uninterrupted):
    """The log may have updates made during the first save."""
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    (run / "checkpoints/0.part").mkdir(parents=True)
    assert resume(run)[0].endswith("restarting.")
    assert_same(run, uninterrupted)


def test_swapped_checkpoints_are_damaged(run):
    kept = sorted((run / "checkpoints").iterdir())
    kept[0].rename(run / "other")
    kept[1].rename(kept[0])
    (run / "other").rename(kept[1])
    said = resume(run)
    assert f"{kept[0]} is damaged: it is the checkpoint of step {kept[1].name}" in (
        "\n".join(said[:2])
    )


def test_other_data_are_refused_unless_allowed(run):
    other = dataclasses.replace(dataset(), fingerprint="others")
    made = experiment(steps=4 * EVERY, eval_every=EVERY, dataset_=other)
    now = made.data.fingerprint()
    refused(run, f"the data .* was .* and is {now}.*--allow-changes", experiment=made)
    train.train(made, run=run, resume=True, console=silent(), allow_changes=True)
    (resumed,) = json.loads((run / "run.json").read_text())["resumes"]
    before = json.loads((run / "run.json").read_text())["data"]["fingerprint"]
    assert resumed["changed"] == {"data": [before, now]}
    # Once allowed, these are the run's data.
    train.train(made, run=run, resume=True, console=silent())
    refused(run, "the data")


def test_fewer_steps_than_done_are_refused(run):
    made = experiment(steps=5, eval_every=EVERY)
    refused(run, "--steps is the total, .* has done 12 already, got 5", experiment=made)


@pytest.mark.parametrize(
    "damage", [b"[1]\n", b"x\n", b'{"step": "3"}\n', b"\xff\xfe\n", b"[" * 9999 + b"\n"]
)
def test_a_damaged_line_of_the_log_is_named(run, damage):
    path = run / "metrics.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + damage + rest)
    refused(run, r"metrics\.jsonl is damaged: line 2 is no record")


def test_a_torn_last_line_is_no_damage(run, uninterrupted):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "na\xc3')
    resume(run)
    assert_same(run, uninterrupted)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b"[" * 100_000, b"\0" * 50, b'{"a": NaN}'],
    ids=lambda value: str(value[:5]),
)
def test_a_damaged_manifest_is_named(run, damage):
    (run / "run.json").write_bytes(damage)
    refused(run, r"run\.json is (not JSON|damaged)")


@pytest.mark.parametrize("name", ["flags", "data", "script", "code", "devices"])
def test_a_manifest_entry_of_another_type_is_named(run, name):
    found = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(found | {name: 3}))
    refused(run, rf"run\.json is damaged .*\$\.{name}")
    found.pop(name)
    (run / "run.json").write_text(json.dumps(found))
    refused(run, rf"run\.json is damaged .*`{name}`")


def test_a_pipe_is_not_waited_for(run):
    (run / "run.json").unlink()
    os.mkfifo(run / "run.json")
    with pytest.raises(ValueError, match=r"run\.json needs to be a file"):
        resume(run)


def test_a_batch_far_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--batch-size needs at most 1536, .*100000"):
        train.train(
            experiment(batch_size=100_000_000_000), run=tmp_path / "run",
            console=silent(),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [2**32, 2**64, -1])
def test_a_seed_that_is_no_key_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be"):
        experiment(seed=seed)


@pytest.mark.parametrize("name", ["a [b]", "back\\slash", "star*", "per%20cent"])
def test_a_folder_of_any_name_keeps_checkpoints(tmp_path, name):
    run = tmp_path / name / "run"
    train.train(experiment(steps=2, eval_every=2), run=run, console=silent())
    result = train.train(
        experiment(steps=4, eval_every=2), run=run, resume=True, console=silent()
    )
    assert result["steps"] == 4
    state = run / "checkpoints/4/arrays/state"
    assert (state / "manifest.ocdbt").stat().st_size > 0
