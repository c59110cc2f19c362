"""Reading state dicts."""

import pathlib

import numpy as np

from segjax.errors import UserError
from segjax.files import reading, tensors, torch_files

_MAX_BYTES = 2**38


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict: arrays by name.

    Args:
        path: A `.safetensors` file, or a file saved by PyTorch, which need not be
            installed. No code in the file is executed; a file that needs code to be
            read is refused.

    Returns:
        The arrays; float32 for bfloat16.

    Raises:
        ValueError: If the file is damaged or is not a state dict.
        FileNotFoundError: If there is no such file.
    """
    parse = tensors.parse if path.suffix == ".safetensors" else torch_files.parse
    try:
        state = parse(reading.read_bytes(path, max_bytes=_MAX_BYTES))
    except ValueError as error:
        raise UserError(_damaged(path, str(error))) from error
    wide = {k: x.astype(np.float32) for k, x in state.items() if x.dtype.kind == "V"}
    return state | wide  # NumPy itself has no bfloat16.


def _damaged(path: pathlib.Path, reason: str) -> str:
    return f"{path} cannot be read: {reason}. Download or save it again."
