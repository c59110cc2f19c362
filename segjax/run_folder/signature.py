"""The signature of a run's script: only scripts that this user's segjax wrote are run.

`evaluate`, `verify` and `inspect` execute RUN/experiment.py, and a run folder may come
from anybody. File ownership does not help: whoever unpacks an archive owns its files.
`run.json` therefore has an HMAC-SHA256 of the script and of the path it was copied
from, under a key that never leaves the user's home folder. Runs of other users, of
another home folder, and runs whose script was edited have no valid signature.
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


def sign(script: pathlib.Path, origin: str) -> str | None:
    """Returns the signature of a script; None where no key can be stored.

    Args:
        script: The run folder's copy.
        origin: The path of the original, from whose folder it may import modules.
    """
    key = _key(create=True)
    return None if key is None else _hmac(key, script, origin)


def is_trusted(script: pathlib.Path, manifest: Mapping[str, Any]) -> bool:
    """Returns whether this user's segjax wrote a script that was not edited since.

    Args:
        script: The run folder's copy.
        manifest: Its `run.json`.
    """
    key, found = _key(create=False), manifest.get("signature")
    if key is None or found is None:
        return False
    expected = _hmac(key, script, str(manifest["script"]))
    return hmac.compare_digest(expected.encode(), found.encode())


def _hmac(key: bytes, script: pathlib.Path, origin: str) -> str:
    message = hashlib.sha256(script.read_bytes()).digest() + origin.encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _key(*, create: bool) -> bytes | None:
    data = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share"
    path = pathlib.Path(data) / "segjax/key"
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create_key(path)
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: pathlib.Path) -> None:
    """Writes a new key atomically, unless another process wrote one first."""
    draft = path.with_name(f".key.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
