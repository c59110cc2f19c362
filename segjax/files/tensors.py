"""Reading safetensors."""

from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from segjax.errors import UserError

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
"""The dtypes that can be stored."""


def parse(content: bytes) -> dict[str, np.ndarray]:
    """Parses safetensors into read-only arrays by name; bfloat16 as in `ml_dtypes`.

    Raises:
        ValueError: If the header is invalid, tensors overlap, have gaps or are
            truncated, or NumPy has no such dtype. The message completes a sentence
            about the file.
    """
    try:
        tensors = safetensors.deserialize(content)
    except Exception as error:  # SafetensorError, and others from its parser.
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"it is not a valid safetensors file ({reason})") from error
    unknown = sorted({x["dtype"] for _, x in tensors} - _DTYPES.keys())
    if unknown:
        raise UserError(
            f"it has tensors of dtype {unknown[0]}, which NumPy does not support: "
            f"needed one of {', '.join(_DTYPES)}"
        )
    return {
        name: np.frombuffer(x["data"], _DTYPES[x["dtype"]]).reshape(x["shape"])
        for name, x in tensors
    }
