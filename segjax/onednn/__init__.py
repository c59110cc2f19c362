"""Convolutions on x86 CPUs by oneDNN, the library that PyTorch uses: extra `onednn`."""

from segjax.onednn.fusion import fused
from segjax.onednn.library import version
from segjax.onednn.primitives import Pads, convolution, takes

__all__ = ["Pads", "convolution", "fused", "takes", "version"]
