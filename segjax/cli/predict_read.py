"""Reads the images of `segjax predict`, ahead of the computation."""

import collections
import concurrent.futures
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from segjax import inference
from segjax.cli.predict_inputs import Job
from segjax.cli.predict_work import Work
from segjax.errors import UserError
from segjax.files import limits
from segjax.files.tiff_windows import TiffWindows

Read = tuple[np.ndarray | ValueError, str]
"""An image, or why it cannot be read; and a note, or ""."""


def prefetched(
    work: Work, chunks: Sequence[Sequence[Job]], options: Any, *, ahead: int
) -> Iterator[list[Read]]:
    """Yields the images of each chunk, while those of the next ones are read."""
    with concurrent.futures.ThreadPoolExecutor(2) as readers:
        waiting: collections.deque = collections.deque()
        for chunk in chunks:
            waiting.append([readers.submit(_read, work, x, options) for x in chunk])
            if sum(map(len, waiting)) > ahead:
                yield [x.result() for x in waiting.popleft()]
        while waiting:
            yield [x.result() for x in waiting.popleft()]


def _read(work: Work, job: Job, options: Any) -> Read:
    limit = max(options.max_pixels, limits.MAX_PIXELS if options.tile else 0)
    try:
        return work.models[0].read(job.path, page=job.page, max_pixels=limit)
    except ValueError as error:
        return error, ""
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return UserError(f"{job.path} cannot be read: {reason}."), ""


def size_of(work: Work, job: Job, options: Any) -> tuple[int, int] | None:
    """Reads (height, width), from the header if possible; None if it cannot be read."""
    with contextlib.suppress(ValueError, OSError):
        return inference.image_size(
            job.path,
            channels=work.models[0].description["image"]["channels"],
            max_pixels=options.max_pixels,
            page=job.page,
        )
    return None


def is_windowed(job: Job, options: Any) -> bool:
    """Whether a file is larger than --max-pixels, and read in windows of --tile."""
    if not options.tile or job.page is not None:
        return False
    if job.path.suffix.lower() not in (".tif", ".tiff"):
        return False
    with contextlib.suppress(ValueError, OSError), TiffWindows(job.path) as image:
        return image.shape[0] * image.shape[1] > options.max_pixels
    return False


@contextlib.contextmanager
def windows_of(work: Work, job: Job) -> Iterator[TiffWindows]:
    """Opens a file that is read in windows.

    Raises:
        ValueError: If it does not fit the model.
    """
    about = work.models[0].description["image"]
    with TiffWindows(job.path) as image:
        if image.shape[2] != about["channels"] or image.dtype != about["dtype"]:
            raise UserError(
                f"{job.path} has {image.shape[2]} channels of {image.dtype}: "
                f"needed {about['channels']} of {about['dtype']} for an image that "
                f"is read in windows; convert it."
            )
        yield image
