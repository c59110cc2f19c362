"""What Orbax and TensorStore need to write where and as they are told."""

import contextlib
import logging
import pathlib
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

_PLAIN = re.compile(r"[^\[\]{}*?\\%#$]*")
"""Paths that TensorStore takes as they are."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax's own telling of an error, page by page, out of the terminal.

    After the first array that fails Orbax closes its event loop: TensorStore reports
    the others, which end later, to a loop that is gone, and those that were not begun
    are warned of whenever Python collects them.
    """

    def others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def tell(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    logger = logging.getLogger("absl")
    before = sys.unraisablehook
    logger.addFilter(others)
    sys.unraisablehook = tell
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", message="coroutine 'async_serialize")
        raise
    finally:
        sys.unraisablehook = before
        logger.removeFilter(others)


def is_plain(name: str) -> bool:
    """Whether TensorStore takes a name as it is, not as a pattern or an escape."""
    return _PLAIN.fullmatch(name) is not None


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[str]:
    """A path that leads to a folder and means nothing else to TensorStore.

    It reads brackets and backslashes as a pattern or an escape, and writes nothing;
    such a folder is reached by a link from a temporary one. The last name of the path
    must be plain.
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
