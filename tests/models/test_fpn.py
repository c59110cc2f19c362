import pathlib
import sys

import jax
import numpy as np
import pytest

from segjax import models
from segjax.models import region

CHANNELS = (4, 6, 8, 10)


@pytest.fixture
def maps(rng):
    """Sizes that do not halve evenly, as those of images that do not divide by 32."""
    sizes = ((13, 10), (7, 5), (4, 3), (2, 2))
    return [
        rng.normal(size=(2, *size, channels)).astype(np.float32)
        for size, channels in zip(sizes, CHANNELS, strict=True)
    ]


@pytest.fixture
def variables(maps, rng):
    def draw(x):
        return rng.normal(scale=0.3, size=x.shape).astype(np.float32)

    model = models.FPN(5)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), maps))
    return jax.tree.map(draw, shapes)


def test_levels(maps, variables):
    pyramid = jax.jit(models.FPN(5).apply)(variables, maps)
    assert [x.shape for x in pyramid[:4]] == [(*x.shape[:3], 5) for x in maps]
    np.testing.assert_array_equal(pyramid[4], pyramid[3][:, ::2, ::2])


def test_padding_is_ignored(maps, variables):
    apply = jax.jit(models.FPN(5).apply)
    # Twice as large from level to level, as a pyramid is.
    sizes = ((16, 16), (8, 8), (4, 4), (2, 2))
    maps = [x[:, : s[0] // 2, : s[1] // 2] for x, s in zip(maps, sizes, strict=True)]
    want = apply(variables, maps)
    padded, pixel_masks = [], []
    for x, (height, width) in zip(maps, sizes, strict=True):
        pads = ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0))
        padded.append(np.pad(x, pads, constant_values=7))
        size = np.array([x.shape[1:3]] * 2, np.int32)
        pixel_masks.append(region.top_left(size, height, width))
    got = apply(variables, padded, pixel_masks=pixel_masks)
    for x, y in zip(got, want, strict=True):
        assert np.std(y) > 0.1
        x = x[:, : y.shape[1], : y.shape[2]]
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parity
def test_equals_torchvision(maps, variables):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    import torch
    from torchvision_cpu import torchvision

    theirs = torchvision.ops.FeaturePyramidNetwork(
        list(CHANNELS), 5, torchvision.ops.feature_pyramid_network.LastLevelMaxPool()
    )
    for name, blocks in (
        ("inner", theirs.inner_blocks),
        ("layer", theirs.layer_blocks),
    ):
        for i, block in enumerate(blocks):
            conv = variables["params"][f"{name}{i}"]["conv"]
            kernel = torch.from_numpy(conv["kernel"]).permute(3, 2, 0, 1)
            block[0].weight.data = kernel.contiguous()
            block[0].bias.data = torch.from_numpy(conv["bias"])
    inputs = {
        str(i): torch.from_numpy(x).permute(0, 3, 1, 2) for i, x in enumerate(maps)
    }
    want = theirs(inputs)
    got = jax.jit(models.FPN(5).apply)(variables, maps)
    assert len(got) == len(want)
    for x, y in zip(got, want.values(), strict=True):
        y = y.detach().permute(0, 2, 3, 1).numpy()
        assert np.std(y) > 0.1
        np.testing.assert_allclose(x, y, atol=1e-5)
