"""The files of a run folder: manifest, lock, checksums, arrays; read and written."""

from segjax.run_folder.environment import code_digests, file_digest, run_environment
from segjax.run_folder.errors import SaveError
from segjax.run_folder.integrity import DamagedError
from segjax.run_folder.lock import locked
from segjax.run_folder.manifest import (
    SCRIPT,
    dataset_fingerprint,
    write_json,
    write_script,
)
from segjax.run_folder.signature import is_trusted

__all__ = [
    "SCRIPT",
    "DamagedError",
    "SaveError",
    "code_digests",
    "dataset_fingerprint",
    "file_digest",
    "is_trusted",
    "locked",
    "run_environment",
    "write_json",
    "write_script",
]
