"""Reading whole files, text and JSON."""

import codecs
import json
import os
import pathlib
import stat
from typing import Any

from segjax.files import limits


def read_bytes(path: pathlib.Path, *, max_bytes: int = limits.FILE_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: Links are followed.
        most: Bytes it may have.

    Raises:
        ValueError: If it is larger, or a folder, pipe or device, of which none is read.
        OSError: If it cannot be opened or read; with the path as `filename`.
    """
    # Without blocking, so that a pipe which nobody writes to does not hold us.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(
                f"{path} is a {_kind(found.st_mode)}: needed a regular file; save the "
                f"data in one."
            )
        if found.st_size > most:
            raise ValueError(too_large(str(path), found.st_size, most))
        try:
            content = file.read()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    if len(content) > most:
        raise ValueError(too_large(str(path), len(content), most))
    return content


def too_large(where: str, size: int, most: int) -> str:
    """The message for a file of too many bytes."""
    return (
        f"{where} has {size:,} bytes: needed at most {most:,}; give a smaller file, or "
        f"split it."
    )


def parse_json(content: bytes, where: str, *, need: str, fix: str) -> Any:
    """JSON in UTF-8, 16 or 32.

    Args:
        content: Of the file.
        where: The file, for messages.
        need: What was needed.
        fix: What to do.

    Raises:
        ValueError: If it is no JSON, or nested deeper than Python's parser goes.
    """
    try:
        return json.loads(content)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # Text, syntax, and numbers of too many digits.
        reason = " ".join(str(error).split())
    raise ValueError(f"{where} is not JSON ({reason}): needed {need}; {fix}.")


def decode_text(content: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 that begins with its mark.

    Raises:
        ValueError: If it is in another encoding; the message names `where`.
    """
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not text in UTF-8 (byte {error.start} does not fit): needed "
            f"UTF-8; save it again in that encoding."
        ) from error


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")
