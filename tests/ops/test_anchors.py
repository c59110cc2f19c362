import numpy as np
import pytest

from segjax import ops
from tests import torchvision_oracle

SIZES = ((32,), (64, 80), (128,))
RATIOS = (0.5, 1.0, 2.0)


def test_by_hand():
    # Half as high as wide, area 32 * 32: 45.25 wide and 22.63 high, halves rounded.
    got = ops.cell_anchors((32,), (0.5, 1.0))
    np.testing.assert_array_equal(got, [[-23, -11, 23, 11], [-16, -16, 16, 16]])
    (level,) = ops.pyramid_anchors(
        (16, 24), [(2, 3)], sizes=((32,),), aspect_ratios=(0.5, 1.0)
    )
    assert level.dtype == np.float32
    assert level.shape == (2 * 3 * 2, 4)
    np.testing.assert_array_equal(level[:2], got)
    # Row by row: the second cell is 8 pixels to the right, the fourth 8 down.
    np.testing.assert_array_equal(level[2:4], got + np.float32([8, 0, 8, 0]))
    np.testing.assert_array_equal(level[6:8], got + np.float32([0, 8, 0, 8]))


@pytest.mark.parity
@pytest.mark.parametrize("image", [(96, 160), (97, 130)])
def test_equals_torchvision(image):
    torchvision = torchvision_oracle.load()
    import torch

    anchor_utils = torchvision.models.detection.anchor_utils
    image_list = torchvision.models.detection.image_list.ImageList
    sizes = (
        *((32, 64, 128, 256, 512), (17,), (8, 31.5)),
    )  # Odd ones too: halves are rounded to even.
    levels = [tuple(-(-n // stride) for n in image) for stride in (4, 8, 16)]
    generator = anchor_utils.AnchorGenerator(sizes, (RATIOS,) * 3)
    (want,) = generator(
        image_list(torch.zeros((1, 3, *image)), [image]),
        [torch.zeros((1, 1, *level)) for level in levels],
    )
    got = ops.pyramid_anchors(image, levels, sizes=sizes, aspect_ratios=RATIOS)
    np.testing.assert_array_equal(np.concatenate(got), want)


def test_message():
    with pytest.raises(ValueError, match="got 3 groups for 2 levels"):
        ops.pyramid_anchors((8, 8), [(4, 4), (2, 2)], sizes=SIZES, aspect_ratios=RATIOS)
