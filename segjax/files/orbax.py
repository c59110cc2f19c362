"""Workarounds for Orbax and TensorStore: special paths, and their own error output."""

import contextlib
import logging
import pathlib
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

_PLAIN = re.compile(r"[^\[\]{}*?\\%#$]*")
"""Paths that TensorStore reads literally."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax's own reports of a failed save, pages long, out of the terminal.

    After the first array that fails Orbax closes its event loop. TensorStore reports
    the arrays that fail later to that closed loop, and Python warns of those that were
    never started when it collects them.
    """

    def not_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def report(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    logger = logging.getLogger("absl")
    before = sys.unraisablehook
    logger.addFilter(not_orbax)
    sys.unraisablehook = report
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", message="coroutine 'async_serialize")
        raise
    finally:
        sys.unraisablehook = before
        logger.removeFilter(not_orbax)


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
