import contextlib
import itertools

import numpy as np
import pytest

from segjax.data import evaluation
from segjax.data.dataset import Dataset
from segjax.data.instances import crop, fill
from segjax.data.objects import Objects, encode_objects
from segjax.data.pipeline import Pipeline

EYE = np.eye(8, dtype=np.uint8)
KEYS = ("boxes", "classes", "masks", "object_mask", "crowd", "size")


def example(rng, size=(12, 10), count=4):
    """Rectangles, some covered by later ones; pixel values encode positions."""
    instances = np.zeros(size, np.uint16)
    label = np.zeros(size, np.uint8)
    for k in range(1, count + 1):
        top, left = rng.integers(0, np.array(size) - 3)
        window = np.s_[top : top + rng.integers(2, 7), left : left + rng.integers(2, 7)]
        instances[window] = 10 * k
        label[window] = 1 + k % 3
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([instances // 10, rows, columns], -1).astype(np.uint8)
    return {"image": image, "label": label, "instances": instances, "name": "n"}


def pipeline(examples, **options):
    data = Dataset("fake", ("b", "x", "y", "z"), {"train": examples}, "f")
    return Pipeline(**{"dataset": data, "size": 7, "max_objects": 5} | options)


def take(pipe, count, **options):
    with contextlib.closing(pipe.train_batches(batch_size=4, seed=1, **options)) as s:
        return list(itertools.islice(s, count))


def by_hand(numbers, label):
    """For each object number, its class, box and mask."""
    found = []
    for number in sorted(set(numbers.ravel().tolist()) - {0}):
        places = [
            (y, x)
            for y in range(numbers.shape[0])
            for x in range(numbers.shape[1])
            if numbers[y, x] == number
        ]
        ys, xs = [y for y, _ in places], [x for _, x in places]
        box = [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        found.append((label[places[0]], box, numbers == number))
    return found


def test_objects_follow_the_crop(rng):
    examples = [example(rng) for _ in range(6)]
    batches = take(pipeline(examples), 9)
    num_objects = []
    for batch in batches:
        assert batch["masks"].dtype == batch["object_mask"].dtype == bool
        assert batch["boxes"].dtype == np.float32
        assert batch["classes"].dtype == np.int32
        assert "num_dropped" not in batch
        np.testing.assert_array_equal(batch["size"], 7)
        for row in range(4):
            # The first channel of the image is the number of the object.
            hand = by_hand(batch["image"][row, ..., 0], batch["label"][row])
            count = len(hand)
            num_objects.append(count)
            assert batch["object_mask"][row].tolist() == [True] * count + [False] * (
                5 - count
            )
            for slot, (class_id, box, mask) in enumerate(hand):
                assert batch["classes"][row, slot] == class_id
                assert batch["boxes"][row, slot].tolist() == box
                np.testing.assert_array_equal(batch["masks"][row, slot], mask)
            for name in ("boxes", "classes", "masks", "crowd"):
                assert not batch[name][row, count:].any()
    assert len(set(num_objects)) > 2  # Some crops lack some objects.


def test_padding_holds_no_object(rng):
    (batch,) = take(pipeline([example(rng, (6, 9))], size=(8, 16)), 1)
    np.testing.assert_array_equal(batch["size"], [(6, 9)] * 4)
    assert batch["object_mask"].any()
    assert not batch["masks"][:, :, 6:].any()
    assert not batch["masks"][:, :, :, 9:].any()


def test_evaluation_has_all_objects(rng):
    examples = [example(rng, size) for size in ((12, 10), (7, 9), (12, 9))]
    pipe = pipeline(examples, multiple=4)
    seen = []
    for batch in pipe.eval_batches("train", batch_size=2):
        for row, number in enumerate(batch["index"]):
            if batch["weight"][row] == 0:
                assert not batch["object_mask"][row].any()
                continue
            seen.append(number)
            numbers = examples[number]["instances"]
            assert tuple(batch["size"][row]) == numbers.shape
            hand = by_hand(numbers, examples[number]["label"])
            assert batch["object_mask"][row].sum() == len(hand)
            height, width = numbers.shape
            for slot, (class_id, box, mask) in enumerate(hand):
                assert batch["classes"][row, slot] == class_id
                assert batch["boxes"][row, slot].tolist() == box
                got = batch["masks"][row, slot]
                np.testing.assert_array_equal(got[:height, :width], mask)
                assert got.sum() == mask.sum()  # Not in reflected pixels.
    assert sorted(seen) == [0, 1, 2]


def objects(areas, crowd=None):
    masks = np.zeros((len(areas), 8, 8), bool)
    for mask, area in zip(masks, areas, strict=True):
        mask.ravel()[:area] = True
    crowd = np.zeros(len(areas), bool) if crowd is None else np.array(crowd)
    return Objects(masks, np.arange(1, len(areas) + 1, dtype=np.int32), crowd)


def test_the_largest_are_kept():
    found = fill(objects([3, 9, 5, 9, 5]), (8, 8), limit=3)
    assert found["classes"].tolist() == [2, 3, 4]  # The first of two with area 5.
    assert found["num_dropped"] == 2
    assert fill(objects([3, 9]), (8, 8), limit=2)["num_dropped"] == 0


def test_dropped_objects_cause_warnings(rng, capsys):
    examples = [example(rng, count=4) for _ in range(8)]
    pipe = pipeline(examples, size=12, max_objects=1)
    batches = take(pipe, 20)
    lines = capsys.readouterr().err.splitlines()
    assert "max_objects=1 dropped" in lines[0]
    images = [int(line.split(" of ")[1].split()[0]) for line in lines]
    assert images == [2**k for k in range(len(images))]
    assert all(batch["masks"].shape[1] == 1 for batch in batches)
    take(pipe, 20)
    assert not capsys.readouterr().err  # Warned before.
    take(pipeline(examples, size=12, max_objects=9), 3)
    assert not capsys.readouterr().err


def dots(size, count, *, encoded):
    """An example with `count` objects of one pixel."""
    instances = np.zeros(size, np.uint16)
    instances.ravel()[: 2 * count : 2] = np.arange(1, count + 1)
    made = {"label": (instances > 0).astype(np.uint8), "name": "n"}
    made |= {"image": np.zeros((*size, 3), np.uint8)}
    if not encoded:
        return made | {"instances": instances}
    from pycocotools import mask as coco_mask

    masks = [instances == k for k in range(1, count + 1)]
    rles = [coco_mask.encode(np.asfortranarray(m, dtype=np.uint8)) for m in masks]
    return made | {"objects": encode_objects(rles, [1] * count, [False] * count)}


@pytest.mark.parametrize("encoded", [False, True])
def test_evaluation_has_slots_for_all_objects(encoded, capsys):
    counts = [((12, 10), 2), ((12, 10), 7), ((12, 10), 0), ((40, 12), 4), ((9, 70), 0)]
    examples = [dots(*one, encoded=encoded) for one in counts]
    pipe = pipeline(examples, max_objects=1)
    slots = {}
    for batch in pipe.eval_batches("train", batch_size=4):
        slots[batch["masks"].shape[2:]] = batch["masks"].shape[1]
        assert "num_dropped" not in batch
        for row in np.flatnonzero(batch["weight"]):
            _, count = counts[batch["index"][row]]
            assert batch["object_mask"][row].sum() == count
            assert batch["masks"][row].sum() == count
    assert slots == {(32, 32): 8, (64, 32): 4, (32, 96): 1}
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "slots"),
    [(0, 1), (1, 1), (3, 4), (33, 64), (64, 64), (65, 128), (375, 384)],
)
def test_slots_are_rounded_up(count, slots):
    rows = [[((8, 8), 0), ((8, 8), evaluation.PADDING)]]
    assert evaluation.slots_by_size(rows, [count]) == {(8, 8): slots}


def test_the_largest_batch_counts_masks():
    few, many = (dots((32, 64), 1, encoded=False), dots((32, 32), 511, encoded=False))
    assert largest_shape([few, many], max_objects=1) == (32, 64)
    many = dots((32, 32), 512, encoded=False)
    few = dots((32, 33), 1, encoded=False)
    assert largest_shape([few, many], multiple=1, max_objects=1) == (32, 32)
    assert largest_shape([few, many], multiple=1, max_objects=None) == (32, 33)


def largest_shape(examples, **options):
    batch = pipeline(examples, **options).largest_eval_batch("train", batch_size=1)
    return batch["label"].shape[1:]


def test_an_image_without_objects():
    image = np.zeros((8, 8, 3), np.uint8)
    none = {"image": image, "label": image[..., 0], "instances": image[..., 0]}
    (batch,) = take(pipeline([none]), 1)
    assert not batch["object_mask"].any()
    assert batch["weight"].all()


def coco_example(crowd=(False, True, False)):
    from pycocotools import mask as coco_mask

    masks = np.zeros((3, 8, 9), np.uint8)
    masks[0, 1:4, 2:6], masks[1, 3:7, 3:8], masks[2, 0, 0] = 1, 1, 1
    rles = [coco_mask.encode(np.asfortranarray(m)) for m in masks]
    text = encode_objects(rles, [2, 1, 3], list(crowd))
    image = np.zeros((8, 9, 3), np.uint8)
    label = masks.max(0)
    return {"image": image, "label": label, "objects": text, "name": "n"}, masks


def test_overlapping_objects_and_crowds():
    one, masks = coco_example()
    (batch,) = pipeline([one], multiple=1).eval_batches("train", batch_size=1)
    assert batch["classes"][0].tolist() == [2, 1, 3, 0]
    assert batch["crowd"][0].tolist() == [False, True, False, False]
    np.testing.assert_array_equal(batch["masks"][0, :3], masks)
    assert batch["boxes"][0, 0].tolist() == [2, 1, 6, 4]
    (batch,) = take(pipeline([one], size=(8, 9)), 1)
    assert batch["classes"][0].tolist() == [
        2,
        3,
        0,
        0,
        0,
    ]  # Crowds are dropped in training.
    assert not batch["crowd"].any()


def test_a_window_drops_objects_outside_of_it():
    one, masks = coco_example()
    arrays = {k: np.asarray(v) for k, v in one.items()}
    found = crop(arrays, np.s_[2:8, 4:9])
    np.testing.assert_array_equal(found.masks, masks[:2, 2:8, 4:9])
    assert found.classes.tolist() == [2, 1]


def test_void_and_background_objects_are_dropped(rng):
    one = example(rng, count=0)
    one["instances"][:3, :3], one["label"][:3, :3] = 1, 255
    one["instances"][5:8, 5:8] = 2
    one["instances"][9:11, :2], one["label"][9:11, :2] = 3, 2
    (batch,) = pipeline([one], multiple=1).eval_batches("train", batch_size=1)
    assert batch["classes"][0].tolist() == [2, 0, 0, 0]


@pytest.mark.slow
def test_workers_and_corrupt_records(rng):
    class Broken(list):
        bad = ()

        def __getitem__(self, number):
            return [][0] if number in self.bad else super().__getitem__(number)

    examples = Broken(example(rng) for _ in range(6))
    options = {"skip_corrupt": 1, "max_objects": 2}
    alone = pipeline(examples, **options)
    helped = pipeline(examples, num_workers=2, **options)
    examples.bad = (2,)
    for a, b in zip(take(alone, 5), take(helped, 5), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        left = a["weight"] == 0
        assert not any(a[name][left].any() for name in KEYS if name != "size")
    assert [e.number for e in helped.skipped] == [2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pipeline([], max_objects=0), "max_objects must be at least 1"),
        (
            lambda: take(
                pipeline([{"image": np.zeros((8, 8, 1), np.uint8), "label": EYE}]), 1
            ),
            "This needs a data set with objects, got",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_fingerprint_follows_the_slots(rng):
    prints = {pipeline([], max_objects=n).fingerprint() for n in (None, 1, 2)}
    assert len(prints) == 3
