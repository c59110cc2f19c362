import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from segjax import ops
from segjax.ops.roi_adaptive import averaging_matrices
from segjax.ops.roi_cells import cell_entries
from tests import plain_form, torchvision_oracle

SCALE = 0.25
STATIC = ("output_size", "spatial_scale", "sampling_ratio", "aligned")
fixed = jax.jit(ops.roi_align, static_argnames=STATIC)
adaptive = jax.jit(
    ops.roi_align_adaptive, static_argnames=("output_size", "spatial_scale", "aligned")
)


def align(features, boxes, ratio, aligned, size=(3, 2)):
    options = {"output_size": size, "spatial_scale": SCALE, "aligned": aligned}
    if ratio is None:
        return adaptive(features, boxes, **options)
    return fixed(features, boxes, sampling_ratio=ratio, **options)


def kernel(features, boxes, ratio, aligned, size=(3, 2), scale=SCALE):
    """torchvision's compiled kernel, sample by sample, in float64."""
    features, result = features.astype(np.float64), []
    for box in boxes.astype(np.float64) * scale - (0.5 if aligned else 0):
        least = -np.inf if aligned else 1
        spans = [max(box[2 + i] - box[i], least) for i in (1, 0)]
        counts = [
            int(np.ceil(n / cells)) if ratio is None else ratio
            for n, cells in zip(spans, size, strict=True)
        ]
        out = np.zeros((*size, features.shape[-1]))
        for cell in np.ndindex(size):
            for sample in np.ndindex(*(max(n, 0) for n in counts)):
                y, x = (
                    start + (c + (s + 0.5) / n) * span / cells
                    for start, c, s, n, span, cells in zip(
                        box[[1, 0]], cell, sample, counts, spans, size, strict=True
                    )
                )
                out[cell] += bilinear(features, y, x)
        result.append(out / max(np.prod(counts), 1))
    return np.stack(result)


def bilinear(features, y, x):
    height, width, channels = features.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    i, j = int(y), int(x)
    k, m = min(i + 1, height - 1), min(j + 1, width - 1)
    dy, dx = y - i, x - j
    above = features[i, j] * (1 - dx) + features[i, m] * dx
    below = features[k, j] * (1 - dx) + features[k, m] * dx
    return above * (1 - dy) + below * dy


def boxes_of_all_kinds(rng):
    """On a 9x11 map, 36x44 pixels: inside, across the borders, far out, no area."""
    low = rng.uniform(0, 30, (6, 2))
    inside = np.concatenate([low, np.minimum(low + 14, [44, 36])], axis=1)
    special = [
        [0, 0, 44, 36],
        [-9, -7, 13, 12],
        [30, 20, 60, 50],
        [-90, 5, -70, 9],
        [5, 100, 9, 130],
        [8, 8, 8, 8],
        [10, 4, 10, 30],
        [44, 36, 44, 36],
        [20, 20, 12, 11],
    ]
    return np.concatenate([inside, special]).astype(np.float32)


@pytest.fixture
def features(rng):
    return rng.normal(size=(9, 11, 3)).astype(np.float32)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, None])
def test_equals_the_kernel(rng, features, ratio, aligned):
    boxes = boxes_of_all_kinds(rng)
    got = align(features, boxes, ratio, aligned)
    want = kernel(features, boxes, ratio, aligned)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.ptp(want) > 1


@pytest.mark.parity
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, None])
def test_equals_torchvision(rng, features, ratio, aligned):
    torchvision = torchvision_oracle.load()
    import torch

    # torchvision's PyTorch path, unlike its kernels, clamps samples at any distance.
    boxes = boxes_of_all_kinds(rng)[[0, 1, 2, 3, 4, 5, 6, 11, 12]]
    want = torchvision.ops.roi_align(
        torch.tensor(features).permute(2, 0, 1)[None],
        [torch.tensor(boxes)],
        (3, 2),
        SCALE,
        ratio or -1,
        aligned,
    )
    got = align(features, boxes, ratio, aligned)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=1e-5)


def test_by_hand():
    # Cells of 2x2 pixels with a sample in the middle, on a map that is its own place.
    places = np.stack(np.mgrid[:8.0, :8.0], axis=-1).astype(np.float32)
    boxes = np.float32([[1, 2, 5, 6]])
    got = ops.roi_align(
        places,
        boxes,
        output_size=(2, 2),
        spatial_scale=1.0,
        sampling_ratio=1,
        aligned=True,
    )
    # Pixel centers are at 0.5: the sample at y = 3 lies between features 2 and 3.
    np.testing.assert_allclose(got[0, :, 0, 0], [2.5, 4.5])
    np.testing.assert_allclose(got[0, 0, :, 1], [1.5, 3.5])


@pytest.mark.parametrize("ratio", [2, None])
def test_gradients_are_finite_differences(rng, features, ratio):
    boxes = boxes_of_all_kinds(rng)
    with jax.enable_x64(True):
        weights = jnp.asarray(rng.normal(size=(len(boxes), 3, 2, 3)))

        def loss(x):
            return jnp.sum(
                jnp.sin(align(x, boxes.astype(float), ratio, False)) * weights
            )

        check_grads(
            *(jax.jit(loss), (features.astype(float),), 1),
            modes=["rev"],
            atol=1e-7,
            rtol=1e-6,
        )
        to_boxes = jax.grad(lambda b: jnp.sum(align(features * 1.0, b, ratio, False)))
        assert not np.any(to_boxes(boxes.astype(float)))


def test_levels_at_borders():
    # 224 pixels belong to stride 16; half as many to stride 8; and both ends are open.
    sides = np.float32([0, 1, 55.9, 111.99, 112, 223.99, 224, 447.9, 448, 5000])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    got = jax.jit(functools.partial(ops.roi_levels, spatial_scales=scales))(boxes)
    np.testing.assert_array_equal(got, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3])


@pytest.mark.parity
def test_levels_equal_torchvision(rng):
    torchvision = torchvision_oracle.load()
    import torch

    # Around the borders between levels too, which lie a little below these.
    sides = np.array([28, 56, 112, 224, 448, 896])
    near = [sides * (1 + step) for step in (-2e-6, -4e-7, -1e-7, 1e-7)]
    sides = np.concatenate([sides, *near, rng.uniform(0, 1500, 200)])
    sides = sides.astype(np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    want = torchvision.ops.poolers.LevelMapper(2, 5)([torch.tensor(boxes)])
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    got = jax.jit(functools.partial(ops.roi_levels, spatial_scales=scales))(boxes)
    np.testing.assert_array_equal(got, want)


def random_pyramid(rng, base=32, channels=3):
    sizes = [base >> i for i in range(4)]
    return [rng.normal(size=(n, n, channels)).astype(np.float32) for n in sizes]


def boxes_of_all_levels(rng, far=128):
    side = np.repeat([12.0, 60, 120, 127], 4)[:, None]
    low = rng.uniform(0, 1, (16, 2)) * (far - side)
    return np.concatenate([low, low + side], axis=1).astype(np.float32)


@functools.partial(jax.jit, static_argnames="scales")
def multilevel(pyramid, boxes, sizes=None, scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32)):
    return ops.multilevel_roi_align(
        pyramid,
        boxes,
        output_size=(3, 3),
        spatial_scales=scales,
        sampling_ratio=2,
        aligned=False,
        sizes=sizes,
    )


@pytest.mark.parity
def test_pyramid_equals_torchvision(rng):
    torchvision = torchvision_oracle.load()
    import torch

    # Large boxes on coarse maps, so that there are boxes of several levels.
    pyramid = random_pyramid(rng, base=64)
    boxes = boxes_of_all_levels(rng) * 8
    theirs = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2)
    maps = {
        str(i): torch.tensor(x).permute(2, 0, 1)[None] for i, x in enumerate(pyramid)
    }
    want = theirs(maps, [torch.tensor(boxes)], [(1024, 1024)])
    got = multilevel(pyramid, boxes, scales=tuple(theirs.scales))
    assert set(theirs.map_levels([torch.tensor(boxes)]).tolist()) == {0, 1, 2}
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=1e-5)


SCALES = (1 / 8, 1 / 16)


def by_gather(pyramid, boxes):
    options = {"output_size": (3, 2), "sampling_ratio": 2, "aligned": False}
    return ops.multilevel_roi_align(pyramid, boxes, spatial_scales=SCALES, **options)


def by_matrices(pyramid, boxes):
    """Every box on every map, by a matrix for its rows and one for its columns."""
    boxes = jax.lax.stop_gradient(boxes)
    level, total = ops.roi_levels(boxes, spatial_scales=SCALES), 0
    for i, (features, scale) in enumerate(zip(pyramid, SCALES, strict=True)):
        rows, columns = (
            _matrices(boxes[:, axis] * scale, boxes[:, axis + 2] * scale, size, cells)
            for axis, size, cells in (
                (1, features.shape[0], 3),
                (0, features.shape[1], 2),
            )
        )
        mixed = jnp.einsum("rph,hwc,rqw->rpqc", rows, features, columns)
        total += jnp.where((level == i)[:, None, None, None], mixed, 0)
    return total


def _matrices(start, end, size, cells):
    place, weight = cell_entries(
        start,
        end,
        jnp.full(start.shape, size),
        cells=cells,
        aligned=False,
        count=jnp.full(start.shape, 2.0),
        most=2,
    )
    return jnp.sum(jax.nn.one_hot(place, size) * weight[..., None], axis=2)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (7, 5, 1, 4), (9, 3, 4, 7)]),
    seed=st.integers(0, 999),
)
def test_equals_matrices_of_weights(shape, seed):
    height, width, channels, count = shape
    rng = np.random.default_rng(seed)
    sizes = (height, width), (-(-height // 2), -(-width // 2))
    pyramid = [rng.normal(size=(*n, channels)).astype(np.float32) for n in sizes]
    low = rng.uniform(-20, 60, (count, 2))
    side = np.exp(rng.uniform(0, np.log(400), (count, 2)))
    boxes = np.concatenate([low, low + side], axis=1).astype(np.float32)
    plain_form.check(by_gather, by_matrices, pyramid, boxes, rng=rng)


def test_padding_of_maps_is_ignored(rng):
    pyramid = random_pyramid(rng)
    boxes = np.concatenate([boxes_of_all_levels(rng), [[90, 90, 140, 140]]])
    boxes = boxes.astype(np.float32)
    padded = [
        np.pad(x, ((0, 3 + i), (0, 5), (0, 0)), constant_values=np.nan)
        for i, x in enumerate(pyramid)
    ]
    sizes = jnp.asarray([x.shape[:2] for x in pyramid])
    want = multilevel(pyramid, boxes)
    got = multilevel(padded, boxes, sizes)
    np.testing.assert_array_equal(got, want)


def test_vmap_equals_one_by_one(rng, features):
    boxes = boxes_of_all_kinds(rng)
    both = jax.vmap(functools.partial(align, ratio=2, aligned=False))
    got = both(np.stack([features, 2 * features]), np.stack([boxes, boxes]))
    want = align(features, boxes, 2, False)
    np.testing.assert_allclose(got, [want, 2 * want], rtol=1e-6)


def test_half_precision_has_exact_positions(rng, features):
    boxes = boxes_of_all_kinds(rng)
    half = jnp.asarray(features, jnp.bfloat16)
    for ratio in (2, None):
        got = align(half, boxes, ratio, False)
        assert got.dtype == jnp.bfloat16
        want = kernel(np.asarray(half, np.float32), boxes, ratio, False)
        np.testing.assert_allclose(np.asarray(got, np.float32), want, atol=0.05)


def test_adaptive_weights_sum_to_one():
    start, end = np.float32([0, 2.5, 3, 3]), np.float32([20, 7, 3, 3.1])
    got = averaging_matrices(start, end, 20, cells=4, aligned=False)
    assert got.shape == (4, 4, 20)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)


def test_message():
    with pytest.raises(ValueError, match=r"at least 1, got 0.*roi_align_adaptive"):
        align(np.zeros((4, 4, 1), np.float32), np.zeros((1, 4), np.float32), 0, True)
