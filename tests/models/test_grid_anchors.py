import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops
from segjax.models.detection import anchors

SIZES = ((32,), (64,), (128,), (256,), (512,))
RATIOS = (0.5, 1.0, 2.0)


def levels(height, width):
    shapes = [(height // s, width // s) for s in (4, 8, 16, 32)]
    return [*shapes, tuple(-(-x // 64) for x in (height, width))]


@pytest.mark.parametrize("size", [(64, 128), (96, 160), (224, 352)])
def test_valid_anchors_do_not_depend_on_padding(size):
    shapes = levels(256, 384)
    extent = jnp.array([size], jnp.int32)
    got = anchors.grid_anchors(shapes, extent, SIZES, RATIOS)
    alone = ops.pyramid_anchors(
        size,
        levels(*size),
        sizes=[[32.0], [64.0], [128.0], [256.0], [512.0]],
        aspect_ratios=RATIOS,
    )
    assert sum(got.num_anchors) == got.boxes.shape[1] == len(got.ids)
    boxes = np.asarray(got.boxes)[0][np.asarray(got.valid)[0]]
    np.testing.assert_array_equal(boxes, np.concatenate(alone))


def test_the_coarsest_cells_by_hand():
    # 96 pixels are 2 cells of stride 64, which torchvision places 96 // 2 apart.
    shapes = levels(96, 128)
    extent = jnp.array([[96, 128]], jnp.int32)
    got = anchors.grid_anchors(shapes, extent, SIZES, [1.0])
    coarsest = np.asarray(got.boxes)[0, -4:]
    corners = np.array([[0, 0], [64, 0], [0, 48], [64, 48]])
    np.testing.assert_array_equal(coarsest[:, :2] + 256, corners)


def test_ids_do_not_depend_on_padding():
    def named(height, width):
        extent = jnp.array([[96, 96]], jnp.int32)
        got = anchors.grid_anchors(levels(height, width), extent, SIZES, RATIOS)
        valid = np.asarray(got.valid)[0]
        assert len(set(got.ids)) == len(got.ids)
        boxes = np.asarray(got.boxes)[0][valid]
        return {i: tuple(box) for i, box in zip(got.ids[valid], boxes, strict=True)}

    assert named(96, 96) == named(160, 256)
