import contextlib
import dataclasses
import itertools
import os

import numpy as np
import pytest

from segjax.data.dataset import Dataset
from segjax.data.examples import Reader
from segjax.data.pad import (
    pad_to_multiple,
    pad_to_size,
    padded_size,
    reflect_to_size,
)
from segjax.data.pipeline import Pipeline
from segjax.typing import Data, Field


def fake(splits, fingerprint="f"):
    return Dataset("fake", ("a", "b", "c"), splits, fingerprint)


def example(number, size):
    # Channels: example number, row, column. Label 1 + row % 2, one ignored pixel.
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([np.full(size, number), rows, columns], -1).astype(np.uint8)
    label = (1 + rows % 2).astype(np.uint8)
    label[1, 1] = 255
    return {"image": image, "label": label, "name": f"e{number}"}


def dataset(sizes=((8, 8),) * 10):
    examples = [example(i, size) for i, size in enumerate(sizes)]
    return fake({"train": examples, "test": examples[:5]})


def take(pipeline, count, **options):
    with contextlib.closing(pipeline.train_batches(**options)) as stream:
        return [
            {k: np.array(v) for k, v in batch.items()}
            for batch in itertools.islice(stream, count)
        ]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def numbers(batches):
    return np.concatenate([b["image"][:, 0, 0, 0] for b in batches])


def test_is_data():
    pipeline: Data = Pipeline(dataset=dataset(), size=8)
    assert pipeline.classes == ("a", "b", "c")
    assert tuple(pipeline.splits) == ("train", "test")
    assert pipeline.num_examples("test") == 5


def test_shapes_and_values():
    (batch,) = take(Pipeline(dataset=dataset(), size=(5, 6)), 1, batch_size=4, seed=0)
    shapes = {name: (x.dtype.name, x.shape) for name, x in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, 5, 6, 3)),
        "label": ("uint8", (4, 5, 6)),
        "weight": ("float32", (4,)),
        "index": ("int32", (4,)),
    }
    rows, columns = batch["image"][..., 1], batch["image"][..., 2]
    expected = np.where((rows == 1) & (columns == 1), 255, 1 + rows % 2)
    np.testing.assert_array_equal(batch["label"], expected)
    np.testing.assert_array_equal(batch["index"], range(4))
    np.testing.assert_array_equal(batch["weight"], 1)
    # Crops are windows of the image, pixel by pixel.
    assert (np.diff(rows.astype(int), axis=1) == 1).all()
    assert (np.diff(columns.astype(int), axis=2) == 1).all()


def test_every_example_once_an_epoch_in_another_order():
    seen = numbers(take(Pipeline(dataset=dataset(), size=4), 10, batch_size=4, seed=3))
    epochs = seen.reshape(4, 10)
    assert [sorted(e) for e in epochs.tolist()] == [list(range(10))] * 4
    assert len({tuple(e) for e in epochs.tolist()}) == 4


def test_batches_of_one():
    batches = take(Pipeline(dataset=dataset(), size=4), 10, batch_size=1, seed=3)
    assert sorted(numbers(batches)) == list(range(10))


def test_seeds_share_no_epoch():
    pipeline = Pipeline(dataset=dataset(((8, 8),) * 12), size=4)
    orders = [
        tuple(numbers([batch]))
        for seed in range(6)
        for batch in take(pipeline, 4, batch_size=12, seed=seed)
    ]
    assert len(set(orders)) == len(orders)


def test_crops_reach_every_corner_and_differ_between_epochs():
    batches = take(Pipeline(dataset=dataset(), size=7), 20, batch_size=10, seed=0)
    corners = [tuple(x) for b in batches for x in b["image"][:, 0, 0, 1:].tolist()]
    counts = [corners.count(c) for c in itertools.product((0, 1), (0, 1))]
    assert sum(counts) == 200
    assert min(counts) > 25  # 50 expected, standard deviation 6.


@pytest.mark.parametrize("first_batch", [1, 2, 3, 7])
def test_resume_is_exact(first_batch):
    pipeline = Pipeline(dataset=dataset(), size=5)
    whole = take(pipeline, 9, batch_size=4, seed=1)
    rest = take(
        pipeline, 9 - first_batch, batch_size=4, seed=1, first_batch=first_batch
    )
    assert_same(rest, whole[first_batch:])


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_processes_concatenated_are_one_process(count):
    pipeline = Pipeline(dataset=dataset(), size=5)
    whole = take(pipeline, 5, batch_size=8, seed=1)
    parts = [
        take(pipeline, 5, batch_size=8, seed=1, process_index=rank, process_count=count)
        for rank in range(count)
    ]
    for k, batch in enumerate(whole):
        for rank in range(count):
            mine = slice(rank * 8 // count, (rank + 1) * 8 // count)
            assert_same([parts[rank][k]], [{n: x[mine] for n, x in batch.items()}])


@pytest.mark.parametrize("count", [1, 2])
def test_workers_change_nothing(count):
    options = {
        "batch_size": 4,
        "seed": 1,
        "first_batch": 2,
        "process_index": count - 1,
        "process_count": count,
    }
    alone = take(Pipeline(dataset=dataset(), size=5), 5, **options)
    helped = take(Pipeline(dataset=dataset(), size=5, num_workers=2), 5, **options)
    assert_same(helped, alone)


def test_threads_change_nothing():
    runs = [Pipeline(dataset=dataset(MIXED), size=5, num_threads=n) for n in (1, 5)]
    assert runs[0].fingerprint() == runs[1].fingerprint()
    assert_same(*(take(run, 6, batch_size=4, seed=1) for run in runs))
    assert_same(*(list(run.eval_batches("train", batch_size=2)) for run in runs))


@pytest.mark.parametrize("cache_bytes", [0, 1_000, 2**30])
def test_the_cache_changes_nothing(cache_bytes):
    plain = take(Pipeline(dataset=dataset(), size=5), 9, batch_size=4, seed=1)
    pipeline = Pipeline(dataset=dataset(), size=5, cache_bytes=cache_bytes)
    assert_same(take(pipeline, 9, batch_size=4, seed=1), plain)


# All once for their sizes, since a list has no `image_size`, the first once for its
# spec, and then all three times.
@pytest.mark.parametrize(("cache_bytes", "decoded"), [(0, 41), (2 * 8 * 8 * 4, 34)])
def test_the_cache_keeps_what_fits(cache_bytes, decoded, monkeypatch):
    indices, decode = [], Reader._decode
    monkeypatch.setattr(
        Reader, "_decode", lambda self, i: indices.append(i) or decode(self, i)
    )
    pipeline = Pipeline(dataset=dataset(), cache_bytes=cache_bytes)
    for _ in range(3):
        list(pipeline.eval_batches("train", batch_size=4))
    assert len(indices) == decoded


def test_small_images_are_padded_with_invalid():
    pipeline = Pipeline(dataset=dataset(((3, 9),)), size=(5, 6))
    (batch,) = take(pipeline, 1, batch_size=2, seed=0)
    assert (batch["label"][:, 3:] == 255).all()
    assert (batch["image"][:, 3:] == 0).all()
    assert (batch["label"][:, :3] != 255).sum() >= 2 * (3 * 6 - 1)


def test_whole_images_when_size_is_none():
    (batch,) = take(Pipeline(dataset=dataset()), 1, batch_size=2, seed=0)
    assert batch["image"].shape == (2, 8, 8, 3)


def test_size_none_needs_equal_images():
    pipeline = Pipeline(dataset=dataset(((8, 8), (6, 7))))
    with pytest.raises(ValueError, match=r"got 6x7 .* and 8x8") as error:
        take(pipeline, 1, batch_size=2, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_evaluation_covers_every_example_once(batch_size):
    sizes = ((8, 8), (3, 5), (8, 7), (12, 4), (4, 4), (8, 5), (2, 2))
    data = dataset(sizes)
    pipeline = Pipeline(dataset=data, multiple=4)
    batches = list(pipeline.eval_batches("train", batch_size=batch_size))
    index = np.concatenate([b["index"][b["weight"] == 1] for b in batches])
    assert sorted(index) == list(range(len(sizes)))
    assert sum(b["weight"].sum() for b in batches) == len(sizes)
    for batch in batches:
        assert len(batch["index"]) == batch_size
        padding = batch["weight"] == 0
        valid = batch["label"] != 255
        assert not valid[padding].any()
        assert (batch["index"][padding] == -1).all()
        for row in np.flatnonzero(~padding):
            i = batch["index"][row]
            height, width = sizes[i]
            assert tuple(batch["size"][row]) == sizes[i]
            assert valid.shape[1:] == padded_size(sizes[i], 4)
            image = batch["image"][row, :height, :width]
            np.testing.assert_array_equal(image, data.splits["train"][i]["image"])
            assert valid[row].sum() == height * width - 1
            assert not valid[row, height:].any()
            assert not valid[row, :, width:].any()
    shapes = [b["image"].shape[1:3] for b in batches]
    for shape in set(shapes):  # Within a size, the split's order.
        rows = [
            b["index"][b["weight"] == 1]
            for b in batches
            if b["image"].shape[1:3] == shape
        ]
        assert (np.diff(np.concatenate(rows)) > 0).all()


MIXED = ((8, 8), (3, 5), (8, 7), (12, 4), (4, 4), (8, 5), (2, 2), (7, 8), (8, 6))


@pytest.mark.parametrize(("count", "batch_size"), [(2, 2), (2, 4), (4, 4), (4, 8)])
def test_processes_evaluate_together(count, batch_size):
    pipeline = Pipeline(dataset=dataset(MIXED), multiple=4)
    whole = list(pipeline.eval_batches("train", batch_size=batch_size))
    parts = [
        list(
            pipeline.eval_batches(
                "train", batch_size=batch_size, process_index=r, process_count=count
            )
        )
        for r in range(count)
    ]
    for rank, part in enumerate(parts):
        rows = batch_size // count
        mine = slice(rank * rows, (rank + 1) * rows)
        assert_same(part, [{k: x[mine] for k, x in b.items()} for b in whole])
    index = np.concatenate([b["index"][b["weight"] == 1] for p in parts for b in p])
    assert sorted(index) == list(range(len(MIXED)))


def test_few_shapes_hold_all_images():
    data = dataset(MIXED)
    pipeline = Pipeline(dataset=data, multiple=4, max_shapes=2)
    batches = list(pipeline.eval_batches("train", batch_size=4))
    shapes = [b["image"].shape[1:3] for b in batches]
    assert len(set(shapes)) == 2
    assert len(batches) == 3  # Nine images: at most one short batch a shape.
    index = [b["index"][b["weight"] == 1] for b in batches]
    assert sorted(np.concatenate(index)) == list(range(len(MIXED)))
    for batch in batches:
        for row in np.flatnonzero(batch["weight"]):
            number = batch["index"][row]
            height, width = batch["size"][row]
            assert (height, width) == MIXED[number]
            np.testing.assert_array_equal(
                batch["image"][row, :height, :width],
                data.splits["train"][number]["image"],
            )


class Sized(list):
    read = ()

    def __getitem__(self, number):
        self.read = (*self.read, number)
        return super().__getitem__(number)

    def image_size(self, number):
        return MIXED[number]


def test_a_process_decodes_its_own_rows_only():
    examples = Sized(dataset(MIXED).splits["train"])
    pipeline = Pipeline(dataset=fake({"train": examples}), multiple=4, cache_bytes=0)
    batches = pipeline.eval_batches(
        "train", batch_size=4, process_index=1, process_count=2
    )
    examples.read = ()
    (*batches,) = batches
    index = np.concatenate([b["index"][b["weight"] == 1] for b in batches])
    assert len(index) < 6
    assert 0 not in index
    # And the first, for the spec.
    assert sorted(examples.read) == [0, *sorted(index)]


def test_an_empty_split_has_no_batches():
    pipeline = Pipeline(dataset=fake({"train": []}))
    assert not list(pipeline.eval_batches("train", batch_size=2))


def test_closing_an_iterator_stops_its_threads():
    pipeline = Pipeline(dataset=dataset(), size=4)
    with contextlib.closing(pipeline.train_batches(batch_size=2, seed=0)) as stream:
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_batches_outlive_their_workers():
    pipeline = Pipeline(dataset=dataset(), size=4, num_workers=1)
    with contextlib.closing(pipeline.train_batches(batch_size=2, seed=0)) as stream:
        batch = next(stream)
    assert {type(x) for x in batch.values()} == {np.ndarray}  # No shared memory.


class DyingElsewhere(list):
    home = None

    def __getitem__(self, index):
        if os.getpid() != self.home:
            os._exit(9)
        return super().__getitem__(index)


def test_a_dead_reader_is_named():
    examples = DyingElsewhere(dataset().splits["train"])
    examples.home = os.getpid()
    data = fake({"train": examples})
    pipeline = Pipeline(dataset=data, size=4, num_workers=1)
    with pytest.raises(RuntimeError, match=r"reader process died.*exit code 9"):
        take(pipeline, 1, batch_size=2, seed=0)


def test_fingerprint_follows_data_and_settings():
    base = Pipeline(dataset=dataset(), size=4)
    same = Pipeline(
        dataset=dataset(), size=(4, 4), num_workers=2, cache_bytes=0, max_shapes=2
    )
    assert base.fingerprint() == same.fingerprint()
    others = [
        dataclasses.replace(base, size=(4, 5)),
        dataclasses.replace(base, size=None),
        dataclasses.replace(base, multiple=16),
        dataclasses.replace(base, train_split="test"),
        dataclasses.replace(base, dataset=fake({}, fingerprint="g")),
        dataclasses.replace(base, fields={"x": Field("linear")}),
        dataclasses.replace(base, fields={"x": Field("nearest")}),
    ]
    assert len({p.fingerprint() for p in [base, *others]}) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.num_examples("dev"), "no split 'dev': .* train, test"),
        (lambda p: p.eval_batches("dev", batch_size=1), "no split 'dev'"),
        (lambda p: p.eval_batches("test", batch_size=0), "batch_size must be"),
        (
            lambda p: p.train_batches(batch_size=6, seed=0, process_count=4),
            "multiple of the 4 processes, got 6",
        ),
        (
            lambda p: p.eval_batches("test", batch_size=3, process_count=2),
            "multiple of the 2 processes, got 3",
        ),
        (lambda p: dataclasses.replace(p, slow_after=0.0), "slow_after must be"),
        (
            lambda p: dataclasses.replace(p, skip_corrupt=-1),
            "skip_corrupt must be at least 0",
        ),
        (lambda p: dataclasses.replace(p, multiple=0), "multiple must be at least 1"),
        (lambda p: dataclasses.replace(p, max_shapes=0), "max_shapes must be at least"),
        (
            lambda p: dataclasses.replace(p, num_threads=0),
            "num_threads must be at least 1",
        ),
        (
            lambda p: dataclasses.replace(p, num_workers=-1),
            "num_workers must be at least 0",
        ),
        (lambda p: dataclasses.replace(p, size=0), "size must be at least 1 pixel"),
        (
            lambda p: dataclasses.replace(p, train_split="x").train_batches(
                batch_size=1, seed=0
            ),
            "no split 'x'",
        ),
        (
            lambda p: dataclasses.replace(p, dataset=fake({"train": []})).train_batches(
                batch_size=1, seed=0
            ),
            "'train' is empty",
        ),
    ],
)
def test_mistakes_are_named_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call(Pipeline(dataset=dataset(), size=4))


def test_a_mask_of_another_size_is_named():
    bad = example(0, (8, 8)) | {"label": np.zeros((8, 9), np.uint8)}
    pipeline = Pipeline(dataset=fake({"train": [bad]}), size=4)
    with pytest.raises(ValueError, match=r"record 0 of 'train'.*\(8, 9\)"):
        take(pipeline, 1, batch_size=1, seed=0)


def test_padding(rng):
    x = rng.integers(1, 9, (5, 7, 3))
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (8, 8, 3)
    np.testing.assert_array_equal(padded[:5, :7], x)
    assert padded.sum() == x.sum()
    assert pad_to_size(x, (5, 2)) is x
    assert padded_size((8, 9), 4) == (8, 12)


def test_reflection_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]])[..., None].repeat(3, -1)
    wide = reflect_to_size(image, (5, 4))
    by_hand = [[1, 2, 3, 2], [4, 5, 6, 5], [1, 2, 3, 2], [4, 5, 6, 5], [1, 2, 3, 2]]
    np.testing.assert_array_equal(wide[..., 0], by_hand)
    assert reflect_to_size(image, (2, 3)) is image
    one = reflect_to_size(image[:1, :1], (3, 2))
    np.testing.assert_array_equal(one, np.ones((3, 2, 3)))


def test_evaluation_pads_by_reflection_and_ignores_the_padding():
    pipeline = Pipeline(dataset=dataset([(6, 7)]), multiple=4)
    (batch,) = pipeline.eval_batches("train", batch_size=1)
    rows = batch["image"][0, :, 0, 1]
    np.testing.assert_array_equal(rows, [0, 1, 2, 3, 4, 5, 4, 3])
    valid = batch["label"] != 255
    assert not valid[0, 6:].any()
    assert not valid[0, :, 7:].any()
    assert valid.sum() == 6 * 7 - 1  # One pixel is ignored.
    np.testing.assert_array_equal(batch["size"], [(6, 7)])
