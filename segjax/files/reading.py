"""Reading files, text and JSON."""

import codecs
import json
import os
import pathlib
import stat
from typing import Any

from segjax.errors import UserError
from segjax.files import limits


def read_bytes(path: pathlib.Path, *, max_bytes: int = limits.FILE_BYTES) -> bytes:
    """Reads a regular file.

    Args:
        path: Links are followed.
        max_bytes: Maximum size.

    Raises:
        ValueError: If it is larger, or a folder, pipe or device.
        OSError: If it cannot be opened or read; with the path as `filename`.
    """
    # Non-blocking, since opening a pipe without a writer would block.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(
                f"{path} is a {_kind(found.st_mode)}: needed a regular file; save the "
                f"data in one."
            )
        if found.st_size > max_bytes:
            raise UserError(too_large(str(path), found.st_size, max_bytes))
        try:
            content = file.read()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    if len(content) > max_bytes:
        raise UserError(too_large(str(path), len(content), max_bytes))
    return content


def too_large(where: str, size: int, max_bytes: int) -> str:
    """Returns the message for a file that is too large."""
    return (
        f"{where} has {size:,} bytes: needed at most {max_bytes:,}; use a smaller "
        f"file, or split it."
    )


def parse_json(content: bytes, where: str, *, need: str, fix: str) -> Any:
    """Parses JSON in UTF-8, UTF-16 or UTF-32.

    Args:
        content: The file's content.
        where: Its name, for messages.
        need: What is needed, for messages.
        fix: What to do, for messages.

    Raises:
        ValueError: If it is not JSON, or nested too deeply for Python's parser.
    """
    try:
        return json.loads(content)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # Encoding, syntax, or numbers with too many digits.
        reason = " ".join(str(error).split())
    raise UserError(f"{where} is not JSON ({reason}): needed {need}; {fix}.")


def decode_text(content: bytes, where: str) -> str:
    """Decodes text in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ValueError: If it has another encoding; the message names `where`.
    """
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not UTF-8 text (byte {error.start} is invalid): needed UTF-8; "
            f"save it again in that encoding."
        ) from error


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")
