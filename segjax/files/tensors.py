"""Named tensors in the format of safetensors."""

from typing import Any

import ml_dtypes
import numpy as np
import safetensors

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.float32,
    "F64": np.float64,
}
DTYPES = frozenset(np.dtype(kind) for kind in _DTYPES.values())
"""Of the arrays that can be kept."""


def parse(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name, read-only; bfloat16 as `ml_dtypes` has it.

    Raises:
        ValueError: If the header is none, if tensors overlap, leave holes or are cut
            off, or have a dtype that NumPy lacks. The message is the end of a
            sentence about the file.
    """
    try:
        tensors = safetensors.deserialize(content)
    except Exception as error:  # SafetensorError, and what else its parser meets.
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"it is not whole safetensors ({reason})") from error
    unknown = sorted({x["dtype"] for _, x in tensors} - _DTYPES.keys())
    if unknown:
        raise ValueError(
            f"it holds numbers of {unknown[0]}, which NumPy lacks: needed one of "
            f"{', '.join(_DTYPES)}"
        )
    return {
        name: np.frombuffer(x["data"], _DTYPES[x["dtype"]]).reshape(x["shape"])
        for name, x in tensors
    }
