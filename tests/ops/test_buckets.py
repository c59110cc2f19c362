import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops

SIDES = st.integers(1, 300)
SIZES = st.lists(st.tuples(SIDES, SIDES), max_size=40)


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, multiple=st.sampled_from([1, 8, 32]), limit=st.integers(1, 6))
def test_every_image_fits_one_of_few_sizes(sizes, multiple, limit):
    got = ops.bucket_sizes(sizes, multiple=multiple, limit=limit)
    assert len(got) == len(sizes)
    assert len(set(got)) <= limit
    for (height, width), padded in zip(sizes, got, strict=True):
        assert padded[0] >= height
        assert padded[1] >= width
        assert padded[0] % multiple == padded[1] % multiple == 0
    assert got == ops.bucket_sizes(list(sizes), multiple=multiple, limit=limit)


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, multiple=st.sampled_from([1, 8, 32]))
def test_a_large_limit_gives_the_smallest_sizes(sizes, multiple):
    got = ops.bucket_sizes(sizes, multiple=multiple, limit=40)
    smallest = [tuple(-(-side // multiple) * multiple for side in s) for s in sizes]
    assert got == smallest


def test_the_cheapest_union_by_hand():
    # 8x8 and 8x16 become 8x16 (64 pixels more); 32x8 with 8x8 would add 192.
    got = ops.bucket_sizes([(8, 8), (32, 8), (8, 16)], multiple=8, limit=2)
    assert got == [(8, 16), (32, 8), (8, 16)]


def test_two_thousand_sizes_take_less_than_a_second(rng):
    sizes = [tuple(s) for s in rng.integers(32, 2_000, (4_000, 2)).tolist()]
    assert len({(h // 32, w // 32) for h, w in sizes}) > 2_000
    start = time.perf_counter()
    got = ops.bucket_sizes(sizes, multiple=32, limit=8)
    assert time.perf_counter() - start < 1
    assert len(set(got)) <= 8
    assert (np.array(got) >= np.array(sizes)).all()
    # Far fewer pixels than with a single size.
    assert np.prod(got, 1).sum() < 0.75 * len(sizes) * np.prod(np.max(sizes, 0))


@pytest.mark.parametrize("options", [{"limit": 0}, {"multiple": 0}])
def test_messages(options):
    with pytest.raises(ValueError, match="limit and multiple of at least 1"):
        ops.bucket_sizes([(1, 1)], **options)
