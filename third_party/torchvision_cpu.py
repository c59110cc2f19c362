"""Runs torchvision beside a PyTorch that its compiled operations do not fit.

    from torchvision_cpu import torchvision

torchvision's wheel is built against a CUDA build of PyTorch, so that its operations do
not load beside a CPU build, and importing it fails. Here the two operations that
detection models need are defined in PyTorch before the import; ROIAlign takes
torchvision's own pure-PyTorch path, uncompiled, which is slow: keep images and
proposals small. That path differs from the kernels where a sample lies outside of the
feature map by more than a cell, or beyond its far edge at all: the kernels give 0
there, it gives the border's value, which thin boxes at the far edge of an image see.
Here it is made to give 0. Where the compiled operations do load, they are used.
"""

import importlib.util
import os
import sys

import torch


def _nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression; indices of the kept boxes, best score first."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = torch.argsort(scores, descending=True, stable=True)
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    keep = []
    for i in order.tolist():
        if gone[i]:
            continue
        keep.append(i)
        low = torch.maximum(boxes[i, :2], boxes[:, :2])
        high = torch.minimum(boxes[i, 2:], boxes[:, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        gone |= overlap / (area[i] + area - overlap) > threshold
    return torch.tensor(keep, dtype=torch.int64)


def _qnms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    raise NotImplementedError("NMS of quantized boxes")


def _kernels_interpolation(interpolate):
    """Makes the pure-PyTorch ROIAlign read 0 where the compiled kernels do."""

    def masked(features, index, y, x, ymask, xmask):
        height, width = features.shape[-2:]
        row = ((y >= -1) & (y <= height))[:, None, :, None, :, None]
        column = ((x >= -1) & (x <= width))[:, None, None, :, None, :]
        value = interpolate(features, index, y, x, ymask, xmask)
        return torch.where(row & column, value, 0)

    return masked


def _compiled_operations_load() -> bool:
    """Whether torchvision's library fits this PyTorch; loads it if so."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        raise ImportError(
            "torchvision is needed: pip install -r third_party/requirements.txt"
        )
    folder = os.path.dirname(spec.origin)
    try:
        torch.ops.load_library(os.path.join(folder, "_C.so"))
    except (ImportError, OSError):
        return False
    return True


_LIBRARY = None  # Kept: its operations go with it.
if "torchvision" not in sys.modules and not _compiled_operations_load():
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    for _name, _function in (("nms", _nms), ("qnms", _qnms)):
        _LIBRARY.define(
            f"{_name}(Tensor dets, Tensor scores, float threshold) -> Tensor"
        )
        _LIBRARY.impl(_name, _function, "CPU")

import torchvision  # noqa: E402
import torchvision.models.detection  # noqa: E402
import torchvision.ops  # noqa: E402

if _LIBRARY is not None:
    torchvision.ops.boxes._assert_has_ops = lambda: None
    # `torchvision.ops.roi_align` is the function, which hides its module. Its inner
    # function compiles itself at the first call, which takes a C++ compiler.
    _module = sys.modules["torchvision.ops.roi_align"]
    _module._roi_align = _module._roi_align.__wrapped__
    _module._bilinear_interpolate = _kernels_interpolation(
        _module._bilinear_interpolate
    )
