"""Workarounds for Orbax and TensorStore: special paths, and their own error output."""

import contextlib
import logging
import pathlib
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_PLAIN = re.compile(r"[^\[\]{}*?\\%#$]*")
"""Paths that TensorStore reads literally."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax's own reports of a failed save, pages long, out of the terminal.

    Python also warns of arrays whose writing was never started when it collects them,
    and asyncio of those whose failure nobody awaited: both may come after the save.
    """

    def not_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger = logging.getLogger("absl")
    before = silence_failed_writers()
    logger.addFilter(not_orbax)
    logging.getLogger("asyncio").addFilter(_not_a_failed_write)
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", message="coroutine 'async_serialize")
        raise
    finally:
        sys.unraisablehook = before
        logger.removeFilter(not_orbax)


def _not_a_failed_write(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return "os_error_code=" not in str(error)  # As TensorStore writes.


def silence_failed_writers() -> Callable[["sys.UnraisableHookArgs"], Any]:
    """Silences TensorStore's threads after a failed save, which is reported once.

    Orbax closes its event loop when the first array cannot be written. The threads of
    the other arrays then fail to use that loop, and each would print a traceback.

    Returns:
        The `sys.unraisablehook` of before.
    """
    before = sys.unraisablehook

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = report
    return before


def is_plain(name: str) -> bool:
    """Returns whether TensorStore reads a name literally."""
    return _PLAIN.fullmatch(name) is not None


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[str]:
    """Yields a path to a folder that TensorStore does not misread.

    TensorStore takes brackets and backslashes for patterns and escapes, and then writes
    nothing without an error; such a folder is reached through a symbolic link. The last
    name of the path must be plain.
    """
    path = str(folder.absolute())
    if is_plain(path):
        yield path
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="segjax-") as place:
        link = pathlib.Path(place, "checkpoint")
        link.symlink_to(folder.parent.absolute())
        yield str(link / folder.name)
