"""JSON round trips of modules, and errors for parts that are not from segjax."""

import functools
import inspect
import json

import flax.linen as nn
import jax.numpy as jnp
import pytest

from segjax import forward, model_file, models, ops
from segjax.model_file import encoding
from segjax.models import encoders, layers


def small_mask_rcnn():
    """The model of experiments/digits_mask_rcnn.py."""
    norm = layers.group_norm
    return models.MaskRCNN(
        body=models.resnet18(width=16, norm=norm),
        fpn=models.FPN(features=64, norm=norm),
        rpn=models.RPN(
            anchor_sizes=((14,), (20,), (28,), (40,), (56,)),
            pre_nms_top_n_train=64,
            post_nms_top_n_test=32,
        ),
        roi_heads=models.RoIHeads(10, box_width=128, mask_convs=2, aligned=True),
        upscale=2,
        dtype=jnp.bfloat16,
    )


OURS = {
    "digits_unet": models.UNet(num_classes=11, widths=(16, 32, 64, 64)),
    "camvid_unet": models.UNet(
        num_classes=11, widths=(32, 64), norm=layers.batch_norm, dropout=0.2
    ),
    "paper": models.UNet(2, norm=layers.no_norm, padding="valid"),
    "bilinear": models.UNet(2, upsample=layers.bilinear, dtype=jnp.bfloat16),
    "remat": models.UNet(2, block=models.remat(layers.ConvBlock)),
    "partial": models.UNet(2, widths=[4, 8], axis_name="data", name="net"),
    "camvid_fcn": models.FCN(
        11, stride=2, widths=(16, 32), convs=(2, 2), norm=layers.batch_norm
    ),
    "digits_simple_cnn": models.SimpleCNN(num_classes=11, width=16),
    "shrunk": models.Shrunk(models.UNet(2, widths=(4, 8)), 3),
    "mask_rcnn_small": small_mask_rcnn(),
    "resnet50_fpn": models.mask_rcnn_resnet50_fpn(),
    "resnet50_fpn_v2": models.mask_rcnn_resnet50_fpn_v2(5),
    "mask_rcnn_remat": models.MaskRCNN(
        body=models.resnet50(block=models.remat(models.Bottleneck), frozen_stages=2)
    ),
    "unet_resnet34": models.UNet(2, encoder=encoders.resnet34()),
    "unet_efficientnet": models.UNet(
        11, (4,) * 5, encoder=encoders.efficientnet_lite2(), norm=layers.batch_norm
    ),
    "unet_efficientnet_remat": models.UNet(
        11,
        encoder=encoders.efficientnet_lite0(
            block=models.remat(encoders.InvertedBottleneck), norm=layers.frozen_norm
        ),
    ),
    "fcn_vgg": models.FCN(3, encoder=encoders.vgg16_bn()),
    "deeplabv3": models.DeepLabV3(21),
    "deeplabv3_plus": models.DeepLabV3Plus(2, encoders.resnet18(output_stride=16)),
    "dilated_fcn": models.DilatedFCN(21),
    "classifier": models.Classifier(encoders.efficientnet_lite0()),
    "unet_conv": models.UNet(2, (4,), encoder=encoders.ConvEncoder((4, 8))),
    "unit_range": ops.UnitRange(),
    "normalize": ops.normalize((0.485, 0.456), (0.229, 0.224)),
    "clip_window": ops.clip_window(200.0, 4000.0),
    "image_only": forward.image_only,
    "mask_rcnn_inputs": models.mask_rcnn_inputs,
    "resnet18": models.resnet18,
    "infinity": models.RPN(score_threshold=float("-inf")),
}


@pytest.mark.parametrize("name", OURS)
def test_back_from_json_is_equal(name):
    value = OURS[name]
    text = json.dumps(model_file.encode(value), allow_nan=False)
    assert model_file.decode(json.loads(text)) == value


def test_a_partial_keeps_its_function_and_arguments():
    norm = functools.partial(layers.batch_norm, mask=None)
    module = models.UNet(2, norm=norm)
    got = model_file.decode(json.loads(json.dumps(model_file.encode(module)))).norm
    assert (got.func, got.args, got.keywords) == (norm.func, (), norm.keywords)


def test_defaults_are_written_too():
    attributes = model_file.encode(models.SimpleCNN(2))["attributes"]
    assert attributes == {"num_classes": 2, "width": 16, "dtype": {"dtype": "float32"}}


class Mine(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Conv(2, (1, 1))(image)


class MyUNet(models.UNet):
    """A subclass, which may compute anything."""


class MyBlock(layers.ConvBlock):
    """A subclass of a block."""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Mine(), r"model is test_encoding\.Mine"),
        (MyUNet(2), "MyUNet"),
        (models.UNet(2, norm=lambda x, **_: x), r"model\.norm is .*<lambda>"),
        (models.UNet(2, block=models.remat(MyBlock)), r"model\.block is .*Remat"),
        (models.UNet(2, block=MyBlock), r"model\.block is .*MyBlock"),
        (models.UNet(2, norm=functools.partial(max)), r"model\.norm is builtins\.max"),
        (models.UNet(2, dtype=float), r"model\.dtype is builtins\.float"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_parts_that_are_not_from_segjax_are_named(value, words):
    with pytest.raises(model_file.NotSerializableError, match=words):
        model_file.encode(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "os.system"}, r"no os\.system"),
        ({"class": "subprocess.Popen", "attributes": {}}, "no subprocess"),
        ({"class": "image_only", "attributes": {}}, "no image_only"),
        (
            {"class": "UNet", "attributes": {"num_classes": 2, "new": 1}},
            "UNet has no attribute new",
        ),
        ({"dtype": "load"}, "no load"),
        ({"other": 1}, "needs a name or a class"),
    ],
    ids=str,
)
def test_names_that_are_not_in_the_list(value, words):
    with pytest.raises(ValueError, match=words):
        model_file.decode(value)


def test_every_public_model_is_in_the_list():
    public = [x for x in vars(models).values() if inspect.isclass(x)]
    modules = {x for x in public if issubclass(x, nn.Module)}
    assert modules <= set(encoding._CLASSES.values())
