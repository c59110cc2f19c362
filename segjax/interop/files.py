"""Reading files of named tensors."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_LONGEST_HEADER = 100_000_000  # Bytes, as the format's own reader allows.


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict: names to arrays.

    Args:
        path: `.safetensors`, which needs nothing, or what PyTorch saved, which needs
            PyTorch. No code in the file is run.

    Raises:
        ValueError: If the file is damaged or holds something else, or if PyTorch is
            needed and not installed.
        FileNotFoundError: If there is no such file.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path)


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The format: a header's length (8 bytes), the header (JSON), then the numbers."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _LONGEST_HEADER):
        raise ValueError(_damaged(path, "its header is cut off"))
    try:
        header: Any = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
    except (ValueError, AttributeError):
        raise ValueError(_damaged(path, "its header is not JSON")) from None
    numbers = data[8 + length :]
    return {name: _tensor(path, name, x, numbers) for name, x in header.items()}


def _tensor(
    path: pathlib.Path, name: str, entry: Mapping[str, Any], numbers: bytes
) -> np.ndarray:
    dtype, shape = entry["dtype"], entry["shape"]
    start, end = entry["data_offsets"]
    if dtype == "BF16":  # The upper half of a float32.
        size, read = 2, lambda x: _from_bfloat16(np.frombuffer(x, np.uint16))
    elif dtype in _SAFETENSORS:
        size = np.dtype(_SAFETENSORS[dtype]).itemsize
        read = lambda x: np.frombuffer(x, _SAFETENSORS[dtype])  # noqa: E731
    else:
        known = ", ".join([*_SAFETENSORS, "BF16"])
        raise ValueError(
            f"{path} holds {name} as {dtype}, which is not read. Convert it to one of "
            f"{known}."
        )
    if end - start != size * math.prod(shape) or end > len(numbers):
        raise ValueError(_damaged(path, f"{name} is cut off"))
    return read(numbers[start:end]).reshape(shape)


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs PyTorch to be read: pip install torch. Or save it as "
            f".safetensors, which does not."
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Pickle's own, zip's own, and many more.
        reason = "it is not a state dict that torch.save wrote"
        raise ValueError(_damaged(path, reason)) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(x, torch.Tensor) for x in state.values()
    ):
        raise ValueError(
            f"{path} needs to hold a state dict, names to tensors, and holds something "
            f"else. Save model.state_dict() of it."
        )
    return {
        name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
        for name, x in state.items()
    }


def _damaged(path: pathlib.Path, reason: str) -> str:
    return f"{path} cannot be read: {reason}. Download or save it again."
