"""Import of pretrained weights from other libraries."""

from segjax.interop.files import read_tensors
from segjax.interop.folder import load, save
from segjax.interop.init_from import init_from
from segjax.interop.torchvision import from_torchvision, ignored_keys

__all__ = [
    "from_torchvision",
    "ignored_keys",
    "init_from",
    "load",
    "read_tensors",
    "save",
]
