"""Saving a trained model as data: `model.json` and a file of its variables.

Reading one executes only segjax's own code: names are looked up in a closed list, and
variables are plain arrays.
"""

from segjax.model_file.encoding import NotSerializableError, decode, encode
from segjax.model_file.files import MODEL_JSON, build_forward, read, write

__all__ = [
    "MODEL_JSON",
    "NotSerializableError",
    "build_forward",
    "decode",
    "encode",
    "read",
    "write",
]
