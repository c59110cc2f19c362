"""How many images of which size are evaluated at once."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from segjax import data
from segjax.data import evaluation

LARGE = (3648, 5472)


def plan(sizes, **options):
    defaults = {"batch_size": 8, "multiple": 32, "max_shapes": 8, "max_pixels": 2**22}
    return evaluation.plan(sizes, **defaults | options)


def rows(planned):
    return [len(batch) for batch in planned]


def dummies(planned):
    return sum(number == evaluation.PADDING for b in planned for _, number in b)


def test_large_photographs_are_evaluated_one_by_one():
    assert rows(plan([LARGE] * 3)) == [1, 1, 1]


def test_large_images_of_different_sizes_have_no_dummy_rows():
    sizes = [(900 + 64 * number, 1300) for number in range(6)]
    planned = plan(sizes)
    assert rows(planned) == [1] * 6
    assert dummies(planned) == 0


def test_large_images_are_spread_evenly():
    # Six images of 0.7 megapixels would fit into a batch; seven need two batches.
    assert rows(plan([(640, 1088)] * 7)) == [4, 4]
    assert dummies(plan([(640, 1088)] * 7)) == 1


def test_small_images_have_one_number_of_rows_in_every_split():
    assert rows(plan([(256, 256)] * 3)) == [8]
    assert rows(plan([(256, 256)] * 9)) == [8, 8]


def test_each_process_has_a_row():
    planned = plan([LARGE] * 3, processes=2)
    assert rows(planned) == [2, 2]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    sizes=st.lists(
        st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=20
    ),
    batch_size=st.sampled_from([2, 4, 8, 32]),
    processes=st.sampled_from([1, 2]),
)
def test_every_example_once_within_the_limits(sizes, batch_size, processes):
    planned = plan(sizes, batch_size=batch_size, processes=processes)
    numbers = [number for batch in planned for _, number in batch]
    found = sorted(number for number in numbers if number != evaluation.PADDING)
    assert found == list(range(len(sizes)))
    by_size = collections.defaultdict(set)
    for batch in planned:
        ((size, count),) = {(size, len(batch)) for size, _ in batch}
        by_size[size].add(count)
        assert count <= batch_size
        assert count % processes == 0
        # One image for each process is evaluated however large it is.
        assert count == processes or count * size[0] * size[1] <= 2**22
    assert all(len(counts) == 1 for counts in by_size.values())
    largest = evaluation.largest(planned, None)
    most = max(len(b) * b[0][0][0] * b[0][0][1] for b in planned)
    assert len(largest) * largest[0][0][0] * largest[0][0][1] == most


@pytest.mark.parametrize("eval_pixels", [2**22, 100])
def test_fewer_pixels_a_batch_change_nothing_else(eval_pixels, monkeypatch):
    monkeypatch.setattr(evaluation, "FILLED_PIXELS", 0)
    rng = np.random.default_rng(0)
    sizes = [(8, 8), (3, 5), (12, 4), (8, 7), (20, 20)]
    examples = [
        {
            "image": rng.integers(0, 255, (*size, 3)).astype(np.uint8),
            "label": np.zeros(size, np.uint8),
            "name": "",
        }
        for size in sizes
    ]
    scenes = data.Dataset("any", ("a",), {"test": examples}, "any")
    pipeline = data.Pipeline(dataset=scenes, multiple=4, eval_pixels=eval_pixels)
    for part in pipeline.eval_batches("test", batch_size=4):
        rows_, height, width = part["image"].shape[:3]
        assert rows_ == 1 or rows_ * height * width <= eval_pixels
        for row, number in enumerate(part["index"]):
            height, width = sizes[number]
            found = part["image"][row, :height, :width]
            np.testing.assert_array_equal(found, examples[number]["image"])
    largest = pipeline.largest_eval_batch("test", batch_size=4)
    assert largest is not None
    assert largest["image"].shape[1:3] == (20, 20)
