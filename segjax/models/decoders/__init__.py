"""Decoders: feature maps to one map, or to a pyramid of maps."""

from segjax.models.decoders.aspp import ASPP
from segjax.models.decoders.fpn import FPN

__all__ = [
    "ASPP",
    "FPN",
]
