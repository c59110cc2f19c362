import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segjax import ops
from tests import torchvision_oracle

H, W, M = 36, 44, 7
crop = jax.jit(ops.crop_masks, static_argnames=("size", "aligned"))
paste = jax.jit(ops.paste_masks, static_argnames=("size", "aligned"))


def random_boxes(rng, count, *, outside=0):
    low = rng.uniform(-outside, 30, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 30, (count, 2))], axis=1)
    if not outside:
        boxes = np.clip(boxes, 0, [W, H, W, H])
    return boxes.astype(np.float32)


def boxes_of_all_kinds(rng):
    boxes = random_boxes(rng, 30, outside=12)
    boxes[:4] = [[0, 0, W, H], [5, 5, 5, 5], [8, 4, 7, 3], [-90, -90, -80, -80]]
    boxes[4] = [-9, -9, W + 9, H + 9]
    return boxes


def test_crop_by_hand():
    # A mask whose left half is set; the box is the image, or its left or right half.
    masks = np.zeros((2, 8, 8), bool)
    masks[1, :, :4] = True
    boxes = np.float32([[0, 0, 8, 8], [0, 0, 4, 8], [5, 0, 8, 8], [0, 0, 8, 8]])
    got = np.asarray(crop(masks, np.int32([1, 1, 1, 0]), boxes, size=2))
    # Not aligned: samples are on whole features 0.5, 1.5, ... so 3.5 is half set.
    np.testing.assert_allclose(got[0], [[0.875, 0]] * 2)
    np.testing.assert_allclose(got[1], [[1, 0.75]] * 2)
    assert not got[2:].any()


@jax.jit
def crop_by_roi_align(masks, index, boxes):
    def one(i, box):
        cells = {"output_size": (M, M), "spatial_scale": 1.0, "aligned": False}
        features = masks[i].astype(jnp.float32)[..., None]
        return ops.roi_align_adaptive(features, box[None], **cells)[0, ..., 0]

    return jax.vmap(one)(index, boxes)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (2, 9, 5, 3), (3, 20, 31, 19)]),
    seed=st.integers(0, 999),
)
def test_crop_equals_roi_align(shape, seed):
    number, height, width, count = shape  # 16 boxes are cut at a time.
    rng = np.random.default_rng(seed)
    masks = rng.random((number, height, width)) < 0.5
    ends = np.sort(rng.uniform(size=(count, 2, 2)), axis=1) * [width, height]
    boxes = ends.reshape(count, 4).astype(np.float32)
    index = rng.integers(0, number, count).astype(np.int32)
    got = crop(masks, index, boxes, size=M)
    want = crop_by_roi_align(masks, index, boxes)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("size", [M, 3])
def test_crop_equals_torchvision(rng, size):
    torchvision = torchvision_oracle.load()
    import torch

    masks = rng.random((3, H, W)) < 0.5
    boxes = random_boxes(rng, 40)  # More than are cropped at once.
    boxes[:3] = [[0, 0, W, H], [5, 5, 5, 5], [3, 2, 4, 30]]
    index = rng.integers(0, 3, 40).astype(np.int32)
    want = torchvision.models.detection.roi_heads.project_masks_on_boxes(
        torch.tensor(masks), torch.tensor(boxes), torch.tensor(index), size
    )
    got = crop(masks, index, boxes, size=size)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_padding_of_masks_is_ignored(rng):
    masks = rng.random((3, H, W)) < 0.5
    boxes = random_boxes(rng, 20)
    boxes[0] = [0, 0, W, H]
    index = rng.integers(0, 3, 20).astype(np.int32)
    want = crop(masks, index, boxes, size=M)
    padded = np.pad(masks, ((0, 2), (0, 9), (0, 4)), constant_values=True)
    got = crop(padded, index, boxes, size=M, image_size=jnp.array([H, W]))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parity
def test_paste_equals_torchvision(rng):
    torchvision = torchvision_oracle.load()
    import torch

    probs = rng.random((30, M, M)).astype(np.float32)
    boxes = boxes_of_all_kinds(rng)
    boxes[5:, 2:] = np.maximum(
        boxes[5:, 2:], 3
    )  # torchvision fails on boxes outside the image.
    paste_theirs = torchvision.models.detection.roi_heads.paste_masks_in_image
    want = paste_theirs(torch.tensor(probs)[:, None], torch.tensor(boxes[:3]), (H, W))
    want = np.concatenate(
        [
            want[:, 0],
            np.zeros((1, H, W)),
            paste_theirs(
                torch.tensor(probs[4:])[:, None], torch.tensor(boxes[4:]), (H, W)
            )[:, 0],
        ]
    )
    got = paste(probs, boxes, size=(H, W))
    np.testing.assert_allclose(got, want, atol=1e-5)
    host = ops.paste_masks_on_host(probs, boxes, size=(H, W))
    assert host.dtype == np.float32
    np.testing.assert_allclose(host, want, atol=1e-5)


def test_paste_without_boxes():
    none = ops.paste_masks_on_host(
        np.zeros((0, M, M), np.float32), np.zeros((0, 4), np.float32), size=(H, W)
    )
    assert none.shape == (0, H, W)


def test_pasting_undoes_cropping(rng):
    # A disc, cut out at 28 and pasted back, overlaps itself almost wholly.
    y, x = np.mgrid[:H, :W] + 0.5
    masks = ((y - 17) ** 2 + (x - 22) ** 2 < 14**2)[None]
    boxes = ops.masks_to_boxes(masks)
    cut = crop(masks, np.int32([0]), boxes, size=28)
    back = ops.paste_masks_on_host(cut, boxes, size=(H, W)) >= 0.5
    assert ops.mask_iou(masks, back)[0, 0] > 0.93


def test_aligned_paste_interpolates_at_pixel_centers(rng):
    probs = rng.random((30, M, M)).astype(np.float32)
    boxes = boxes_of_all_kinds(rng)
    want = np.zeros((30, H, W))
    for out, mask, (x0, y0, x1, y1) in zip(want, probs, boxes, strict=True):
        if x1 > x0 and y1 > y0:
            rows = (np.arange(H) + 0.5 - y0) / (y1 - y0) * M - 0.5
            columns = (np.arange(W) + 0.5 - x0) / (x1 - x0) * M - 0.5
            places = np.meshgrid(rows, columns, indexing="ij")
            out[:] = ndimage.map_coordinates(
                mask, places, order=1, mode="grid-constant"
            )
    got = paste(probs, boxes, size=(H, W), aligned=True)
    np.testing.assert_allclose(got, want, atol=1e-4)
    host = ops.paste_masks_on_host(probs, boxes, size=(H, W), aligned=True)
    assert host.dtype == np.float32
    np.testing.assert_allclose(host, want, atol=1e-4)


@pytest.mark.parity
def test_aligned_crop_and_paste_equal_pytorch(rng):
    torchvision = torchvision_oracle.load()
    import torch

    masks = rng.random((3, H, W)) < 0.5
    boxes = random_boxes(rng, 40)
    index = rng.integers(0, 3, 40).astype(np.int32)
    want = torchvision.ops.roi_align(
        torch.tensor(masks)[:, None].float(),
        torch.cat([torch.tensor(index)[:, None], torch.tensor(boxes)], dim=1),
        M,
        aligned=True,
    )[:, 0]
    cut = crop(masks, index, boxes, size=M, aligned=True)
    np.testing.assert_allclose(cut, want, atol=1e-5)
    # The pixels of the image in the coordinates of each box, from -1 to 1.
    low, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    y, x = np.mgrid[:H, :W] + 0.5
    pixels = np.stack([x, y], axis=-1).reshape(1, -1, 2)
    places = torch.tensor((pixels - low) / side * 2 - 1).reshape(40, H, W, 2).float()
    cut = torch.tensor(np.array(cut))[:, None]
    want = torch.nn.functional.grid_sample(cut, places, align_corners=False)[:, 0]
    got = paste(cut[:, 0].numpy(), boxes, size=(H, W), aligned=True)
    np.testing.assert_allclose(got, want, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_aligned_crop_and_paste_preserve_small_objects(seed):
    """Objects of up to 28 pixels are unchanged; torchvision's way loses pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W] + 0.5
    center, radii = rng.uniform(15, 20, (2, 8, 1, 1)), rng.uniform(2, 14, (2, 8, 1, 1))
    masks = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1
    boxes = np.asarray(ops.masks_to_boxes(masks))
    cut = crop(masks, np.arange(8, dtype=np.int32), boxes, size=28, aligned=True)
    back = ops.paste_masks_on_host(cut, boxes, size=(H, W), aligned=True) >= 0.5
    np.testing.assert_array_equal(back, masks)
