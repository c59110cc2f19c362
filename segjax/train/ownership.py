"""Whether a run folder's script is one that this user's segjax wrote.

`evaluate`, `verify` and `inspect` execute RUN/experiment.py. A run folder may come
from anybody, and its owner on the disk says nothing: who unpacks an archive owns its
files. So `run.json` carries a code (HMAC-SHA256) of the script and of where it came
from, under a key that never leaves the user's home folder. A run of somebody else, one
of another home folder, and one whose script was changed since have no valid code.
"""

import contextlib
import hashlib
import hmac
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

_KEY_BYTES = 32


def signature(script: pathlib.Path, origin: str) -> str | None:
    """The code of a script; None where this user can keep no key.

    Args:
        script: The run folder's copy.
        origin: The path of the original, whose folder's modules it may import.
    """
    key = _key(make=True)
    return None if key is None else _code(key, script, origin)


def is_ours(script: pathlib.Path, manifest: Mapping[str, Any]) -> bool:
    """Whether this user's segjax wrote a script, and nobody changed it since.

    Args:
        script: The run folder's copy.
        manifest: Its `run.json`.
    """
    key, found = _key(make=False), manifest.get("signature")
    if key is None or found is None:
        return False
    expected = _code(key, script, str(manifest["script"]))
    return hmac.compare_digest(expected.encode(), found.encode())


def _code(key: bytes, script: pathlib.Path, origin: str) -> str:
    message = hashlib.sha256(script.read_bytes()).digest() + origin.encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _key(*, make: bool) -> bytes | None:
    data = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share"
    path = pathlib.Path(data) / "segjax/key"
    try:
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_new(path)
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _write_new(path: pathlib.Path) -> None:
    """Writes a key that appears whole, unless another process was first."""
    draft = path.with_name(f".key.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
