"""Checkpoints are restored bit for bit or reported as damaged."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import train
from segjax.run_folder import arrays, integrity
from segjax.run_folder.errors import saving
from segjax.train import sharding
from tests import disks


def state_of(width=3, step=0, optimizer=None):
    optimizer = optimizer or optax.adamw(1e-3)
    params = {"conv": {"kernel": jnp.arange(2.0 * width).reshape(2, width) + step}}
    return train.TrainState(
        step=jnp.int32(step),
        params=params,
        model_state={"batch_stats": {"mean": jnp.ones(width)}},
        opt_state=optimizer.init(params),
        key=jax.random.key(4),
    )


def opened(folder):
    return train.Checkpoints(folder, monitor="iou")


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder):
    with opened(folder) as made:
        yield made


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with checkpoints 1 (the best), 2 and 3; tests copy it."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    with opened(folder) as made:
        for step, iou in ((1, 0.9), (2, 0.1), (3, 0.2)):
            made.save(state_of(step=step), {"iou": iou}, progress={"rows": [step]})
    return folder


@pytest.fixture
def copy(three, folder):
    shutil.copytree(three, folder)
    return folder


def files_of(checkpoint):
    return sorted(p for p in checkpoint.rglob("*") if p.is_file())


def test_the_best_and_the_last_two_are_kept(checkpoints, folder):
    assert checkpoints.best is None
    assert checkpoints.newest_intact() == (None, [])
    metrics = (None, 0.2, 0.9, 0.5, 0.1, float("nan"))
    for step, iou in enumerate(metrics):
        checkpoints.save(state_of(step=step), {} if iou is None else {"iou": iou})
    assert checkpoints.steps == [2, 4, 5]
    assert (checkpoints.best, checkpoints.last) == (2, 5)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4", "5"]
    with opened(folder) as again:
        assert (again.steps, again.best) == ([2, 4, 5], 2)
        assert again.newest_intact() == (5, [])


def test_every_leaf_is_restored_exactly(checkpoints):
    state = state_of(step=5)
    rows = [{"loss": 0.1 + 0.2}]
    checkpoints.save(state, {}, progress={"rows": rows})
    rows.clear()  # As the log does while the checkpoint is being written.
    assert_equal(checkpoints.restore(5, state_of()), state)
    assert checkpoints.progress(5) == {"rows": [{"loss": 0.1 + 0.2}]}


@pytest.mark.parametrize("devices", [1, 4])
def test_a_restored_state_can_be_the_template_of_a_restore(checkpoints, devices):
    """Orbax restores a key with the sharding of its two words, invalid for a scalar."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    for step in (0, 1):
        checkpoints.save(sharding.replicate(state_of(step=step), mesh), {"iou": 0.5})
    newest = checkpoints.restore(1, sharding.replicate(state_of(), mesh))
    assert_equal(checkpoints.restore(0, newest), state_of(step=0))


def test_a_saved_step_is_not_written_again(checkpoints):
    checkpoints.save(state_of(step=5), {"iou": 0.5}, progress={"a": 1})
    checkpoints.save(state_of(step=5, width=4), {}, progress={"a": 2})
    assert_equal(checkpoints.restore(5, state_of()), state_of(step=5))
    assert checkpoints.progress(5) == {"a": 1}


def test_the_state_may_be_donated_while_it_is_written(checkpoints):
    mesh = sharding.make_mesh()
    state = jax.device_put(state_of(width=2**18), sharding.replicated(mesh))
    expected = jax.device_get(state.params)
    spoil = jax.jit(
        lambda s: jax.tree.map(lambda x: x * 0 - 1, s.params), donate_argnums=0
    )
    checkpoints.save(state, {})
    spoilt = spoil(state)
    jax.block_until_ready(spoilt)
    back = checkpoints.restore(0, state_of(width=2**18))
    jax.tree.map(np.testing.assert_array_equal, back.params, expected)


def test_shapes_alone_are_enough_to_restore(checkpoints):
    checkpoints.save(state_of(step=5), {})
    back = checkpoints.restore(5, jax.eval_shape(state_of))
    np.testing.assert_array_equal(
        back.params["conv"]["kernel"], [[5, 6, 7], [8, 9, 10]]
    )


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4), (2, 4)])
def test_the_number_of_devices_may_change(checkpoints, before, after):
    def on(devices, state):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        return jax.device_put(state, sharding.replicated(mesh))

    checkpoints.save(on(before, state_of(step=3)), {})
    back = checkpoints.restore(3, on(after, state_of()))
    assert_equal(jax.device_get(back), jax.device_get(state_of(step=3)))
    assert all(len(x.sharding.device_set) == after for x in jax.tree.leaves(back))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            state_of(width=4),
            r"params/conv/kernel needs float32\[2, 4\], the",
        ),
        (state_of(optimizer=optax.sgd(1.0)), r"opt_state/.* needs nothing"),
    ],
    ids=["model", "optimizer"],
)
def test_a_checkpoint_of_another_model_is_an_error(checkpoints, other, message):
    checkpoints.save(state_of(step=1), {})
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(1, other)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << len(data) % 8
    path.write_bytes(data)


def delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip, delete])
def test_a_damaged_file_is_named_and_the_previous_checkpoint_is_used(copy, damage):
    names = [p.relative_to(copy / "3") for p in files_of(copy / "3")]
    assert {"checksums.json", "_METADATA", "manifest.ocdbt"} <= {n.name for n in names}
    damaged = 0
    for name in names:
        path = copy / "3" / name
        before = path.read_bytes()
        if not before and damage is not delete:
            continue  # Nothing to truncate or flip.
        damage(path)
        with opened(copy) as kept:
            step, problems = kept.newest_intact()
            assert step == kept.last == 2
            assert len(problems) == 1
            assert f"{copy}/3 is damaged: {name.as_posix()} " in problems[0]
            assert kept.steps == [1, 2]
            assert kept.progress(2) == {"rows": [2]}
            assert_equal(kept.restore(2, state_of()), state_of(step=2))
        path.write_bytes(before)
        damaged += 1
    assert damaged >= 9
    with opened(copy) as kept:
        assert kept.newest_intact() == (3, [])


def test_any_changed_bit_of_the_checksums_is_damage(copy):
    path = copy / "3" / integrity.CHECKSUMS
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 7):  # 7 and 8 have no common factor.
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(
            integrity.DamagedError, match=r"checksums.json is not what was"
        ):
            integrity.verify(copy / "3")


def test_an_unknown_file_is_damage(copy):
    (copy / "3/arrays/state/d/0123").write_bytes(b"x")
    with opened(copy) as kept:
        step, problems = kept.newest_intact()
    assert step == 2
    assert "arrays/state/d/0123 does not belong to it" in problems[0]


def test_restoring_a_damaged_checkpoint_is_an_error(copy):
    flip(copy / "3/arrays/state/_METADATA")
    with opened(copy) as kept:
        with pytest.raises(
            ValueError, match=r"3 is damaged: arrays/state/_METADATA is"
        ):
            kept.restore(3, state_of())


def test_a_damaged_checkpoint_is_not_the_best(copy):
    delete(copy / "1/arrays/state/manifest.ocdbt")
    with opened(copy) as kept:
        step, problems = kept.newest_intact()
        assert (step, kept.best) == (3, 3)
        assert f"{copy}/1 is damaged" in problems[0]


def test_damaged_checkpoints_are_replaced_when_their_step_is_saved_again(copy):
    delete(copy / "3/checksums.json")
    flip(copy / "1/checksums.json")
    with opened(copy) as kept:
        assert kept.newest_intact()[0] == 2
        kept.save(state_of(step=3), {"iou": 0.7})
        assert kept.steps == [2, 3]
        assert_equal(kept.restore(3, state_of()), state_of(step=3))
    assert sorted(p.name for p in copy.iterdir()) == ["2", "3"]
    with opened(copy) as kept:
        assert kept.newest_intact() == (3, [])


def test_without_an_intact_checkpoint_there_is_none(copy):
    for step in (1, 2, 3):
        truncate(copy / f"{step}/checksums.json")
    with opened(copy) as kept:
        step, problems = kept.newest_intact()
    assert step is None
    assert [p.split(" is damaged")[0] for p in problems] == [
        f"{copy}/{step}" for step in (3, 2, 1)
    ]


def test_unfinished_checkpoints_are_removed_only_by_the_next_save(copy):
    (copy / "9.part/arrays").mkdir(parents=True)
    with opened(copy) as kept:
        assert kept.newest_intact() == (3, [])
        assert (copy / "9.part").exists()  # Reading removes nothing.
        kept.save(state_of(step=4), {})
    assert sorted(p.name for p in copy.iterdir()) == ["1", "3", "4"]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_save_is_raised_by_the_next_call_and_changes_nothing(
    copy, monkeypatch
):
    kept = opened(copy)
    monkeypatch.setattr(os, "fsync", full)
    kept.save(state_of(step=4), {"iou": 1.0})
    message = (
        r"4 could not be written: No space left on device\. The last intact one: 3\."
    )
    with pytest.raises(train.SaveError, match=message):
        kept.close()
    assert sorted(p.name for p in copy.iterdir()) == ["1", "2", "3"]
    monkeypatch.undo()
    with opened(copy) as again:
        assert again.newest_intact() == (3, [])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    with disks.small_disk(tmp_path / "disk", "512k") as folder:
        yield folder


def test_a_full_disk_is_a_one_line_error(small_disk):
    kept = opened(small_disk / "checkpoints")
    kept.save(state_of(width=1000, step=1), {})
    big = 2**16  # Kernel and two moments exceed the disk.
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(2, big)), jnp.float32)}
    kept.save(dataclasses.replace(state_of(step=2), params=params), {})
    with pytest.raises(train.SaveError) as error:
        assert kept.last
    assert "No space left" in str(error.value)
    assert "The last intact one: 1." in str(error.value)
    assert [p.name for p in (small_disk / "checkpoints").iterdir()] == ["1"]
    with opened(small_disk / "checkpoints") as again:
        assert again.newest_intact() == (1, [])


def test_late_errors_of_arrays_print_nothing(small_disk, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    rng = np.random.default_rng(0)
    params = {
        str(i): jnp.asarray(rng.normal(size=(2, 4096)), jnp.float32) for i in range(64)
    }
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", 0) as file:
        while True:
            file.write(bytes(4096))
    for step in range(3):
        kept = opened(small_disk / "checkpoints")
        kept.save(dataclasses.replace(state_of(step=step), params=params), {})
        with pytest.raises(train.SaveError, match="No space left"):
            assert kept.last
    assert not told


def test_the_record_is_plain_json(three):
    record = json.loads((three / "3/checksums.json").read_text())["record"]
    assert record["metadata"]["step"] == 3
    assert record["metadata"]["progress"] == {"rows": [3]}
    files = {str(p.relative_to(three / "3")) for p in files_of(three / "3")}
    assert record["files"].keys() == files - {"checksums.json"}


@pytest.mark.parametrize("damage", ["removed", "cut", "a folder", "of another step"])
def test_the_best_is_not_guessed_where_a_record_is_damaged(copy, damage):
    path = copy / "1/checksums.json"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "of another step":
        shutil.rmtree(copy / "1")
        shutil.copytree(copy / "2", copy / "1")
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    with opened(copy) as checkpoints:
        with pytest.raises(ValueError, match=r"/1 is damaged: .*--checkpoint last"):
            checkpoints.pick("best")
        assert checkpoints.pick("last") == 3


def test_a_last_that_is_damaged_is_not_replaced_by_an_earlier_one(copy):
    (copy / "3/checksums.json").unlink()
    with opened(copy) as checkpoints:
        with pytest.raises(ValueError, match=r"/3 is damaged: .*--resume"):
            checkpoints.pick("last")


def test_a_save_that_was_paused_for_hours_is_finished(tmp_path, monkeypatch):
    now = time.time
    late = [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + late[0])
    wait = arrays.start_writing(tmp_path / "arrays", state_of())
    late[0] = 5 * 3600.0
    wait()
    assert_equal(arrays.read(tmp_path / "arrays", state_of()), state_of())


def test_a_save_that_takes_too_long_is_a_one_line_error(tmp_path):
    with pytest.raises(train.SaveError, match=r"too long.*--resume"):
        with saving(tmp_path):
            raise RuntimeError("Orbax's") from TimeoutError("Overall save timeout")
