"""Encoders: an image to feature maps, from fine to coarse."""

from segjax.models.encoders.conv import ConvEncoder
from segjax.models.encoders.efficientnet_lite import (
    EFFICIENTNET_LITE,
    EfficientNetLite,
    InvertedBottleneck,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from segjax.models.encoders.encoder import Encoder
from segjax.models.encoders.resnet import (
    IMAGENET,
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)
from segjax.models.encoders.vgg import VGG, vgg16, vgg16_bn

__all__ = [
    "EFFICIENTNET_LITE",
    "IMAGENET",
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "ConvEncoder",
    "EfficientNetLite",
    "Encoder",
    "InvertedBottleneck",
    "ResNet",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg16_bn",
]
