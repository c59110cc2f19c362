"""Writing files that appear under their names whole, or not at all."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, whose file then takes the place of `path`.

    Until then, and if the block raises, `path` is what it was. A kill leaves at most
    a hidden `.NAME.tmp`, which the next writer of `path` takes. What has its name
    survives a power cut.

    Args:
        path: In a folder that exists.

    Raises:
        OSError: If a file cannot be written, as on a full disk; with `path` as its
            `filename`, whichever call it came from.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, error.strerror or str(error), str(path)
            ) from error
        raise


def replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file by `whole`."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


def refusal(error: Exception) -> str | None:
    """`No space left on device`, of an OSError or of what TensorStore makes of one."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else None


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
