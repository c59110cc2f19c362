"""Reading state dicts."""

import pathlib
from collections.abc import Mapping

import numpy as np

from segjax.errors import UserError
from segjax.files import reading, tensors

_MAX_BYTES = 2**38


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict: arrays by name.

    Args:
        path: A `.safetensors` file, or a file saved by PyTorch, which requires PyTorch.
            No code in the file is executed.

    Raises:
        ValueError: If the file is damaged or is not a state dict, or if PyTorch is
            required and not installed.
        FileNotFoundError: If there is no such file.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path)


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        state = tensors.parse(reading.read_bytes(path, max_bytes=_MAX_BYTES))
    except ValueError as error:
        raise UserError(_damaged(path, str(error))) from error
    wide = {k: x.astype(np.float32) for k, x in state.items() if x.dtype.kind == "V"}
    return state | wide  # NumPy itself has no bfloat16.


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} needs PyTorch to be read: pip install torch. Or save it as "
            f".safetensors, which needs no PyTorch."
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # From pickle, zipfile and others.
        reason = "it is not a state dict saved by torch.save"
        raise UserError(_damaged(path, reason)) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(x, torch.Tensor) for x in state.values()
    ):
        raise UserError(
            f"{path} needs to hold a state dict, tensors by name, and holds something "
            f"else. Save model.state_dict() instead."
        )
    return {
        name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
        for name, x in state.items()
    }


def _damaged(path: pathlib.Path, reason: str) -> str:
    return f"{path} cannot be read: {reason}. Download or save it again."
