"""Serialization of segjax's modules and preprocessing steps to JSON values."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from segjax import forward, models, ops
from segjax.errors import UserError
from segjax.models import encoders, layers
from segjax.models.encoders import efficientnet_lite

# Saved files contain these names: never change the meaning of one.
_CLASSES: dict[str, type] = {
    "Classifier": models.Classifier,
    "ConvEncoder": encoders.ConvEncoder,
    "DeepLabV3": models.DeepLabV3,
    "DeepLabV3Plus": models.DeepLabV3Plus,
    "DilatedFCN": models.DilatedFCN,
    "EfficientNetLite": encoders.EfficientNetLite,
    "FCN": models.FCN,
    "FPN": models.FPN,
    "MaskRCNN": models.MaskRCNN,
    "RPN": models.RPN,
    "ResNet": models.ResNet,
    "RoIHeads": models.RoIHeads,
    "Shrunk": models.Shrunk,
    "SimpleCNN": models.SimpleCNN,
    "UNet": models.UNet,
    "VGG": encoders.VGG,
    "layers.ConvBlock": layers.ConvBlock,
    "BasicBlock": models.BasicBlock,
    "Bottleneck": models.Bottleneck,
    "InvertedBottleneck": encoders.InvertedBottleneck,
    "ops.ClipWindow": ops.ClipWindow,
    "ops.Normalize": ops.Normalize,
    "ops.UnitRange": ops.UnitRange,
}
_NAMED: dict[str, Any] = _CLASSES | {
    "efficientnet_lite.batch_norm": efficientnet_lite.batch_norm,
    "efficientnet_lite0": encoders.efficientnet_lite0,
    "efficientnet_lite1": encoders.efficientnet_lite1,
    "efficientnet_lite2": encoders.efficientnet_lite2,
    "efficientnet_lite3": encoders.efficientnet_lite3,
    "efficientnet_lite4": encoders.efficientnet_lite4,
    "image_only": forward.image_only,
    "layers.batch_norm": layers.batch_norm,
    "layers.bilinear": layers.bilinear,
    "layers.bilinear_init": layers.bilinear_init,
    "layers.frozen_norm": layers.frozen_norm,
    "layers.group_norm": layers.group_norm,
    "layers.he_normal": layers.he_normal,
    "layers.no_norm": layers.no_norm,
    "layers.transposed": layers.transposed,
    "mask_rcnn_inputs": models.mask_rcnn_inputs,
    "mask_rcnn_resnet50_fpn": models.mask_rcnn_resnet50_fpn,
    "mask_rcnn_resnet50_fpn_v2": models.mask_rcnn_resnet50_fpn_v2,
    "resnet101": models.resnet101,
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "vgg16": encoders.vgg16,
    "vgg16_bn": encoders.vgg16_bn,
}
_DTYPES = ("float16", "float32", "float64", "bfloat16")


class NotSerializableError(UserError):
    """A part of a model is not from segjax, so it cannot be serialized as data."""


def encode(value: Any, *, part: str = "model") -> Any:
    """Encodes a part of a model as a JSON value.

    Args:
        value: One of segjax's linen modules or preprocessing steps, with attributes
            that are numbers, strings, None, dtypes, tuples, lists, or segjax's modules,
            blocks (also with `models.remat`), norms, and `functools.partial` of these.
        part: Name of the part, for messages.

    Returns:
        A value for `json.dumps`. It contains all attributes, also those with default
        values, so that changing a default does not change saved models.

    Raises:
        NotSerializableError: If a part is not from segjax; names the first one.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else {"float": str(number)}
    if isinstance(value, tuple):
        return [encode(x, part=f"{part}[{i}]") for i, x in enumerate(value)]
    if isinstance(value, list):
        return {"list": encode(tuple(value), part=part)}
    for name, named in _NAMED.items():
        if value is named:
            return {"name": name}
    return _encode_object(value, part)


def _encode_object(value: Any, part: str) -> Any:
    for name, ours in _CLASSES.items():
        if type(value) is ours:
            attributes = {
                field.name: encode(
                    getattr(value, field.name), part=f"{part}.{field.name}"
                )
                for field in _attributes(ours)
                if field.name != "name" or value.name is not None
            }
            return {"class": name, "attributes": attributes}
    if isinstance(value, functools.partial):
        return {
            "partial": encode(value.func, part=part),
            "args": encode(value.args, part=part),
            "keywords": {
                k: encode(v, part=f"{part}.{k}") for k, v in value.keywords.items()
            },
        }
    if inspect.isclass(value) and issubclass(value, _blocks()):
        block = value.__mro__[1]
        if block in _blocks() and value is models.remat(block):
            return {"remat": encode(block, part=part)}
    name = _dtype_name(value)
    if name in _DTYPES:
        return {"dtype": name}
    shown = getattr(value, "__qualname__", type(value).__qualname__)
    module = getattr(value, "__module__", type(value).__module__)
    raise NotSerializableError(
        f"{part} is {module}.{shown}, which is not a part of segjax"
    )


def decode(value: Any) -> Any:
    """Decodes a JSON value that `encode` returned.

    Args:
        value: From `encode`, also after a JSON round trip.

    Returns:
        A module, function, number or tuple equal to the original. Only names in
        segjax's own list are imported or called.

    Raises:
        ValueError: If a name is not in the list, or a class does not have an attribute,
            as in a file written by a newer segjax.
    """
    if isinstance(value, list):
        return tuple(decode(x) for x in value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"name": name}:
            return _look_up(_NAMED, name)
        case {"dtype": name}:
            return getattr(jnp, _look_up({n: n for n in _DTYPES}, name))
        case {"float": text}:
            return float(text)
        case {"list": items}:
            return list(decode(items))
        case {"remat": block}:
            return models.remat(decode(block))
        case {"partial": function, "args": args, "keywords": keywords}:
            return functools.partial(
                decode(function), *decode(args), **_decode_values(keywords)
            )
        case {"class": name, "attributes": attributes}:
            return _build(_look_up(_CLASSES, name), name, _decode_values(attributes))
    raise UserError(f"a part of a model needs a name or a class, got {value}.")


def _decode_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: decode(value) for name, value in values.items()}


def _build(ours: type, name: str, attributes: dict[str, Any]) -> Any:
    unknown = attributes.keys() - {field.name for field in _attributes(ours)}
    if unknown:
        raise UserError(
            f"{name} has no attribute {', '.join(sorted(unknown))} in this version of "
            f"segjax. Use the version that wrote the model, or a newer one."
        )
    return ours(**attributes)


def _look_up(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise UserError(
            f"this version of segjax has no {name}. Use the version that wrote the "
            f"model, or a newer one."
        )
    return table[name]


def _attributes(ours: type) -> list[dataclasses.Field]:
    """Returns the fields of a constructor, except a module's parent."""
    return [f for f in dataclasses.fields(ours) if f.init and f.name != "parent"]


def _blocks() -> tuple[type, ...]:
    return (
        layers.ConvBlock,
        models.BasicBlock,
        models.Bottleneck,
        encoders.InvertedBottleneck,
    )


def _dtype_name(value: Any) -> str:
    """Returns "float32" for jnp.float32, np.float32 and its dtype; "" for others."""
    is_type = isinstance(value, type) and issubclass(value, np.generic)
    if is_type or isinstance(value, np.dtype | type(jnp.float32)):
        return np.dtype(value).name
    return ""
