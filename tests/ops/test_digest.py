"""The digest against a second implementation, and its invariances."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from segjax import ops

digest = jax.jit(ops.digest)
SHAPES = ((3, 5), (7,), ())
FLOATS = (np.float32, np.int32, np.uint8)


def mix(word):
    """MurmurHash3's fmix32 on one Python integer."""
    word ^= word >> 16
    word = word * 0x85EBCA6B % 2**32
    word ^= word >> 13
    word = word * 0xC2B2AE35 % 2**32
    return word ^ word >> 16


def second_digest(leaves):
    """The formula of the docstring, in Python integers."""
    golden, total = 0x9E3779B9, 0
    for place, x in enumerate(leaves, 1):
        x = np.ascontiguousarray(x)
        words = x.view(f"<u{min(4, x.dtype.itemsize)}").ravel().tolist()
        leaf = sum(mix((w + golden * i) % 2**32) for i, w in enumerate(words))
        total += mix((leaf + golden * place) % 2**32)
    return total % 2**32


def tree(rng, dtypes=FLOATS):
    bits = [rng.integers(0, 256, (*s, 4), np.uint8) for s in SHAPES]
    return [
        b[..., : np.dtype(d).itemsize].copy().view(d)[..., 0]
        for b, d in zip(bits, dtypes, strict=True)
    ]


def flipped(x, bit):
    """A copy of an array with one bit flipped."""
    x = np.array(x)
    x.reshape(-1).view(np.uint8)[bit // 8] ^= 1 << bit % 8
    return x


def test_mix_is_that_of_murmurhash3():
    # Known answers of fmix32, as MurmurHash3's users publish them.
    assert mix(0) == 0
    assert mix(1) == 0x514E28B7
    assert mix(2**32 - 1) == 0x81F16F39


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_second_implementation(seed):
    leaves = tree(np.random.default_rng(seed))
    assert int(digest(leaves)) == second_digest(leaves)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "int16", "int8", "uint32", "float32"]
)
def test_every_width(rng, dtype):
    x = np.asarray(jnp.asarray(rng.normal(size=40) * 50).astype(dtype))
    assert int(digest([x])) == second_digest([x.view(f"u{x.dtype.itemsize}")])


def test_booleans_and_keys(rng):
    x = rng.random(50) > 0.5
    assert int(digest([x])) == second_digest([x.view(np.uint8)])
    key = jax.random.key(3)
    assert int(digest([key])) == second_digest([np.asarray(jax.random.key_data(key))])


def test_float64_uses_all_bits(rng):
    with jax.enable_x64(True):
        x = rng.normal(size=9)
        assert int(ops.digest([x])) == second_digest([x.view(np.uint32)])
        assert int(ops.digest([flipped(x, 64 * 4)])) != int(ops.digest([x]))


def test_empty_tree_is_zero():
    assert int(ops.digest({})) == 0
    assert int(digest([np.zeros(0, np.float32)])) == second_digest([np.zeros(0, "f4")])


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), place=st.data())
def test_any_one_bit_changes_it(seed, place):
    leaves = tree(np.random.default_rng(seed))
    leaf = place.draw(st.integers(0, len(leaves) - 1))
    bit = place.draw(st.integers(0, 8 * leaves[leaf].nbytes - 1))
    other = [flipped(x, bit) if i == leaf else x for i, x in enumerate(leaves)]
    assert int(digest(other)) != int(digest(leaves))


def test_depends_on_order_within_and_between_leaves(rng):
    a, b = rng.normal(size=(2, 5)).astype(np.float32)
    assert int(digest([a, b])) != int(digest([b, a]))
    for _ in range(50):
        order = rng.permutation(5)
        same = (order == np.arange(5)).all()
        assert (int(digest([a[order], b])) == int(digest([a, b]))) == same


def test_swapping_elements_between_leaves_changes_it(rng):
    leaves = list(rng.normal(size=(4, 5)).astype(np.float32))
    before = int(digest(leaves))
    for one in np.ndindex(4, 5):
        for two in np.ndindex(4, 5):
            other = [x.copy() for x in leaves]
            other[one[0]][one[1]] = leaves[two[0]][two[1]]
            other[two[0]][two[1]] = leaves[one[0]][one[1]]
            assert (int(digest(other)) == before) == (one == two)


def test_depends_on_bits_not_values():
    zeros = np.float32([0.0, -0.0])
    assert int(digest([zeros[:1]])) != int(digest([zeros[1:]]))
    nans = np.uint32([0x7FC00000, 0x7FC00001, 0xFFC00000, 0x7F800001]).view(np.float32)
    assert len({int(digest([nans[i : i + 1]])) for i in range(4)}) == 4
    tiny = np.uint32([0, 1, 2]).view(np.float32)  # Denormal numbers.
    assert len({int(digest([tiny[i : i + 1]])) for i in range(3)}) == 3


def test_no_sharding_changes_it(rng):
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("x",), axis_types=(AxisType.Auto,))
    leaves = [rng.normal(size=s).astype(np.float32) for s in ((8, 3), (5, 4), (6,))]
    want = second_digest(leaves)
    specs = (PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec())
    shardings = [NamedSharding(mesh, spec) for spec in specs]
    split = [jax.device_put(x, s) for x, s in zip(leaves, shardings, strict=True)]
    assert len(split[0].sharding.device_set) == 4
    assert int(digest(split)) == want
    whole = NamedSharding(mesh, PartitionSpec())
    assert int(digest([jax.device_put(x, whole) for x in leaves])) == want


def test_sum_over_rows_does_not_depend_on_the_split(rng):
    """As the train step uses it: the sum over devices of sums over their rows."""
    rows = {"index": np.arange(8, dtype=np.int32), "x": rng.normal(size=(8, 3))}
    rows["x"] = rows["x"].astype(np.float32)
    want = sum(second_digest([rows["index"][i], rows["x"][i]]) for i in range(8))
    total = functools.partial(jnp.sum, dtype=jnp.uint32)
    assert int(total(jax.vmap(digest)(rows))) == want % 2**32
    split = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), rows)

    def part(rows):
        return jax.lax.psum(total(jax.vmap(ops.digest)(rows)), "d")

    assert int(jax.pmap(part, "d", out_axes=None)(split)) == want % 2**32
