"""Every encoder: sizes, parameters, and a U-Net on top of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models import encoders, layers, region

# Published counts with 1,000 classes (timm's model cards), less head and classifier.
LITE = {
    "efficientnet_lite0": (4_652_008, 320),
    "efficientnet_lite1": (5_416_680, 320),
    "efficientnet_lite2": (6_092_072, 352),
    "efficientnet_lite3": (8_197_096, 384),
    "efficientnet_lite4": (13_006_568, 448),
}
VGG_16, VGG_16_BN = 138_357_544, 138_365_992
VGG_CLASSIFIER = (25088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)

tiny_lite = functools.partial(encoders.EfficientNetLite, width=0.125, depth=0.5)
TINY = {
    "conv": functools.partial(encoders.ConvEncoder, (2, 4, 4)),
    "resnet": functools.partial(
        encoders.ResNet, (1, 1, 1, 1), models.BasicBlock, 4, norm=layers.batch_norm
    ),
    "vgg": functools.partial(encoders.VGG, (1, 1, 1), (2, 4, 4)),
    "lite": tiny_lite,
}


def size_of(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", LITE)
def test_parameters_of_efficientnet_lite(name, shapes):
    total, width = LITE[name]
    variables, maps = shapes(getattr(encoders, name)(), 64, 96)
    head = width * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert size_of(variables["params"]) + head == total
    assert [x.shape[1:3] for x in maps] == [(32 // 2**i, 48 // 2**i) for i in range(5)]
    assert maps[-1].shape[-1] == width


@pytest.mark.parametrize(
    ("name", "total"), [("vgg16", VGG_16), ("vgg16_bn", VGG_16_BN)]
)
def test_parameters_of_vgg(name, total, shapes):
    variables, maps = shapes(getattr(encoders, name)(), 64, 96)
    # torchvision's convolutions have a bias also with batch norm.
    biases = 4224 if name == "vgg16_bn" else 0
    assert size_of(variables["params"]) + biases + VGG_CLASSIFIER == total
    assert [x.shape[-1] for x in maps] == [64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_strides_and_channels(name, channels):
    encoder = TINY[name]()
    size = encoder.strides[-1]
    image = jax.ShapeDtypeStruct((2, 2 * size, size, channels), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), image)
    maps = jax.eval_shape(encoder.apply, variables, image)
    assert isinstance(encoder, encoders.Encoder)
    assert [x.shape[1] * s for x, s in zip(maps, encoder.strides, strict=True)] == [
        2 * size
    ] * len(maps)


@pytest.mark.parametrize(
    ("output_stride", "want"), [(16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))]
)
def test_output_stride(output_stride, want, shapes):
    encoder = TINY["resnet"](output_stride=output_stride)
    plain, _ = shapes(TINY["resnet"](), 64, 64)
    variables, maps = shapes(encoder, 64, 64)
    assert encoder.strides == want
    assert [64 // x.shape[1] for x in maps] == list(want)
    assert jax.tree.map(lambda x: x.shape, variables) == jax.tree.map(
        lambda x: x.shape, plain
    )
    with pytest.raises(ValueError, match="output_stride 32, 16 or 8, got 4"):
        shapes(TINY["resnet"](output_stride=4), 64, 64)


def test_padding_changes_nothing_in_efficientnet_lite(random_variables, rng):
    encoder = tiny_lite()
    variables = random_variables(encoder)
    image = rng.normal(size=(1, 32, 64, 3)).astype(np.float32)
    padded = np.full((1, 64, 96, 3), 9, np.float32)
    padded[:, :32, :64] = image
    pixel_mask = region.top_left(np.array([[32, 64]], np.int32), 64, 96)
    apply = jax.jit(encoder.apply)
    want, got = apply(variables, image), apply(variables, padded, pixel_mask=pixel_mask)
    for x, y in zip(got, want, strict=True):
        assert np.std(y) > 1e-3
        np.testing.assert_allclose(x[:, : y.shape[1], : y.shape[2]], y, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_unet(name, shapes):
    encoder = TINY[name]()
    halvings = encoder.strides[-1].bit_length() - 1
    model = models.UNet(3, encoder=encoder)
    variables, logits = shapes(model, 37, 1)
    assert logits.shape == (2, 37, 1, 3)
    params = variables["params"]
    assert "encoder" in params
    assert params["up0"]["Conv_0"]["kernel"].shape[-1] == 16
    assert f"up{halvings - 1}" in params
    assert f"up{halvings}" not in params


def test_unet_equals_its_encoder_inside(random_variables, rng):
    """The U-Net of `widths` is that of a `ConvEncoder` under other names."""
    image = rng.uniform(size=(1, 12, 16, 3)).astype(np.float32)
    plain = models.UNet(2, widths=(2, 4, 6))
    variables = random_variables(plain)
    encoder = encoders.ConvEncoder((2, 4, 6))
    nested = models.UNet(2, widths=(2, 4), encoder=encoder)
    params = dict(variables["params"])
    inside = {k: params.pop(k) for k in ("down0", "down1", "bottom")}
    got = jax.jit(nested.apply)({"params": params | {"encoder": inside}}, image)
    np.testing.assert_array_equal(got, jax.jit(plain.apply)(variables, image))


def test_unet_messages(shapes):
    dilated = TINY["resnet"](output_stride=16)
    with pytest.raises(ValueError, match=r"strides double, got \(2, 4, 8, 16, 16\)"):
        shapes(models.UNet(2, encoder=dilated), 32, 32)
    with pytest.raises(ValueError, match="needs 5 widths for its decoder, got 2"):
        shapes(models.UNet(2, (4, 4), encoder=TINY["resnet"]()), 32, 32)
    with pytest.raises(ValueError, match="padding \"same\", got 'valid'"):
        shapes(models.UNet(2, encoder=TINY["resnet"](), padding="valid"), 32, 32)
    with pytest.raises(ValueError, match="VGG does not support padded images"):
        TINY["vgg"]().init(
            jax.random.key(0),
            jnp.zeros((1, 8, 8, 3)),
            pixel_mask=jnp.ones((1, 8, 8, 1)),
        )


def test_mask_rcnn_takes_other_encoders():
    model = models.MaskRCNN(models.RoIHeads(2), body=tiny_lite())
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert variables["params"]["fpn"].keys() >= {"inner0", "inner3", "layer3"}
    assert "inner4" not in variables["params"]["fpn"]
    assert jax.eval_shape(model.apply, variables, image).boxes.shape[-1] == 4
