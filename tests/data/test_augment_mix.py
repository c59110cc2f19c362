"""cutmix and copy_paste, against loops in NumPy."""

import jax
import numpy as np
import pytest

from segjax import ops, train
from segjax.data import augment
from segjax.typing import EXAMPLES

SIZE, SLOTS = 20, 4


def batch(rng, count=3, *, objects=True, slots=SLOTS):
    made = {
        "image": rng.random((count, SIZE, SIZE, 3)).astype(np.float32),
        "label": rng.integers(0, 4, (count, SIZE, SIZE)).astype(np.int32),
        "valid": rng.random((count, SIZE, SIZE)) < 0.9,
        "linear": {"depth": rng.random((count, SIZE, SIZE)).astype(np.float32)},
        "nearest": {"ids": rng.integers(0, 9, (count, SIZE, SIZE, 2))},
        "age": np.arange(count),
    }
    if not objects:
        return made
    masks = np.zeros((count, slots, SIZE, SIZE), bool)
    for i in range(count):
        for n in range(2):
            top, left = rng.integers(0, SIZE - 6, 2)
            masks[i, n, top : top + 5, left : left + 6] = True
    present = masks.any((2, 3))
    return made | {
        "masks": masks,
        "object_mask": present,
        "boxes": np.asarray(jax.vmap(ops.masks_to_boxes)(masks)),
        "classes": np.where(present, np.arange(slots) + 1, 0).astype(np.int32),
        "crowd": np.zeros((count, slots), bool),
        "size": np.full((count, 2), SIZE, np.int32),
    }


def mixed(augmentation, examples, seed=0):
    count = len(examples["image"])
    keys = jax.random.split(jax.random.key(seed), count)
    over_batch = jax.vmap(augmentation, axis_name=EXAMPLES)
    return jax.tree.map(np.asarray, jax.jit(over_batch)(keys, examples))


def replaced(before, after, i):
    """Where image i has the next one's pixels; checks that it has no others."""
    other = (i + 1) % len(before["image"])
    new = (after["image"][i] != before["image"][i]).any(-1)
    names = [n for n in ("image", "label", "valid", "linear", "nearest") if n in before]
    for name in names:
        leaves = map(jax.tree.leaves, (before[name], after[name]))
        for x, got in zip(*leaves, strict=True):
            where = new.reshape(new.shape + (1,) * (x.ndim - 3))
            np.testing.assert_array_equal(got[i], np.where(where, x[other], x[i]))
    return new, other


def test_cutmix_moves_a_rectangle(rng):
    before = batch(rng, objects=False)
    shares = []
    for seed in range(40):
        after = mixed(augment.cutmix(), before, seed)
        for i in range(3):
            new, _ = replaced(before, after, i)
            rows, columns = np.flatnonzero(new.any(1)), np.flatnonzero(new.any(0))
            if new.any():
                box = new[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                assert box.all()
            shares.append(new.mean())
        np.testing.assert_array_equal(after["age"], before["age"])
    # Areas are uniform, parts outside of the image are lost: 0.5 is an upper bound.
    assert 0.2 < np.mean(shares) < 0.5
    assert max(shares) > 0.7


def test_cutmix_cuts_and_takes_objects(rng):
    before = batch(rng)
    for seed in range(20):
        after = mixed(augment.cutmix(), before, seed)
        for i in range(3):
            new, other = replaced(before, after, i)
            want = {}
            for n in range(SLOTS):
                for source, mask in ((i, ~new), (other, new)):
                    kept = before["masks"][source, n] & mask
                    if kept.any():
                        want[source, n] = kept
            check_objects(after, i, want, before)


def test_copy_paste_covers_objects(rng):
    before = batch(rng)
    counts = []
    for seed in range(20):
        after = mixed(augment.copy_paste(), before, seed)
        for i in range(3):
            new, other = replaced(before, after, i)
            theirs = before["masks"][other]
            pasted = [n for n in range(2) if (theirs[n] & ~new).sum() == 0]
            np.testing.assert_array_equal(new, theirs[pasted].any(0))
            want = {
                (i, n): before["masks"][i, n] & ~new
                for n in range(2)
                if (before["masks"][i, n] & ~new).any()
            }
            want |= {(other, n): theirs[n] for n in pasted}
            check_objects(after, i, want, before)
            counts.append(len(pasted))
    assert {0, 1, 2} <= set(counts)


def check_objects(after, i, want, before):
    present = after["object_mask"][i]
    assert present.sum() == len(want)
    assert present[: len(want)].all()
    for slot, ((source, n), mask) in enumerate(want_in_order(want, i)):
        np.testing.assert_array_equal(after["masks"][i, slot], mask)
        assert after["classes"][i, slot] == before["classes"][source, n]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_array_equal(after["boxes"][i, slot], box)
    assert not after["masks"][i, len(want) :].any()
    assert not after["classes"][i, len(want) :].any()


def want_in_order(want, i):
    """Objects that stay, then those that come."""
    return sorted(want.items(), key=lambda item: (item[0][0] != i, item[0][1]))


def test_objects_that_do_not_fit(rng):
    before = batch(rng, slots=2)
    pasted = mixed(augment.copy_paste(probability=1.0), before)
    for name in before:
        jax.tree.map(np.testing.assert_array_equal, pasted[name], before[name])
    for seed in range(20):
        after = mixed(augment.cutmix(), before, seed)
        for i in range(3):
            new, other = replaced(before, after, i)
            staying = (before["masks"][i] & ~new).any((1, 2)).sum()
            coming = (before["masks"][other] & new).any((1, 2)).sum()
            assert after["object_mask"][i].sum() == staying + coming <= 2


def test_nothing_is_pasted_outside_of_a_small_image(rng):
    before = batch(rng)
    before["size"][:] = 9, 11
    for augmentation in (augment.copy_paste(probability=1.0), augment.cutmix()):
        after = mixed(augmentation, before)
        np.testing.assert_array_equal(after["image"][:, 9:], before["image"][:, 9:])
        np.testing.assert_array_equal(
            after["image"][:, :, 11:], before["image"][:, :, 11:]
        )


def test_crowds_are_not_pasted(rng):
    before = batch(rng)
    before["crowd"][:, 0] = True
    after = mixed(augment.copy_paste(probability=1.0), before)
    assert (after["crowd"].sum(1) <= 1).all()
    for i in range(3):
        new, other = replaced(before, after, i)
        np.testing.assert_array_equal(new, before["masks"][other, 1])


def test_one_example_and_composition(rng):
    alone = batch(rng, count=1)
    both = augment.compose(
        augment.horizontal_flip, augment.sometimes(0.5, augment.cutmix())
    )
    for augmentation in (augment.cutmix(), augment.copy_paste(probability=0.0)):
        after = mixed(augmentation, alone)
        jax.tree.map(np.testing.assert_array_equal, after, alone)
    assert mixed(both, batch(rng))["image"].shape == (3, SIZE, SIZE, 3)


def test_shared_by_devices(rng):
    """The same as on one device, with the batch split over four."""
    before = batch(rng, count=8)
    mesh = train.make_mesh()
    assert mesh.size == 4
    split = jax.NamedSharding(mesh, jax.P(*mesh.axis_names))
    for augmentation in (augment.cutmix(), augment.copy_paste()):
        alone = mixed(augmentation, before)
        shared = mixed(augmentation, jax.device_put(before, split))
        jax.tree.map(np.testing.assert_array_equal, alone, shared)


def test_messages(rng):
    one = jax.tree.map(lambda x: x[0], batch(rng, objects=False))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"alpha must be above 0, got 0\.0"):
        augment.cutmix(alpha=0.0)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 2.0"):
        augment.copy_paste(probability=2.0)
    with pytest.raises(ValueError, match='axis_name="examples"'):
        augment.cutmix()(key, one)
    with pytest.raises(ValueError, match="copy_paste needs objects"):
        augment.copy_paste()(key, one)


def test_in_a_train_step(rng):
    """The step maps augmentations so that they can mix."""
    from segjax.train import step_parts

    examples = batch(rng, objects=False)
    for name in ("linear", "nearest", "age"):
        del examples[name]
    examples |= {"weight": np.ones(3, np.float32), "index": np.arange(3)}
    after = step_parts.augmented(augment.cutmix(), jax.random.key(1), examples)
    assert (np.asarray(after["image"]) != examples["image"]).any()
