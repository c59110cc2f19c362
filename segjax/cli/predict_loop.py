"""The loop of `segjax predict`: reads ahead, computes, and writes behind."""

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from segjax import inference, multihost
from segjax.cli import predict_files
from segjax.cli.predict_inputs import Job
from segjax.cli.predict_work import Work
from segjax.errors import UserError
from segjax.files import limits
from segjax.files.tiff_windows import TiffWindows

_AHEAD = 4
"""Images that are read before, and results that are written after, the computation."""


def predict_all(
    work: Work, jobs: Sequence[Job], options: Any
) -> tuple[list[ValueError], list[str]]:
    """Predicts all images; returns the errors of those that failed, and notes."""
    mine = jobs[jax.process_index() :: jax.process_count()]
    windowed = {job for job in mine if _is_windowed(job, options)}
    suffixes = {
        wide: predict_files.suffixes_of(work, windowed=wide) for wide in (False, True)
    }
    if options.resume:
        every = [*suffixes[False], *suffixes[True]]
        predict_files.remove_unfinished(options.out, mine, every)
    if jax.process_index() == 0:
        about = _about(work, options)
        predict_files.start(options.out, about, resume=options.resume)
    multihost.barrier("predict") if jax.process_count() > 1 else None
    # Planned for all images, so that a resumed run pads each one as a whole run does.
    if not options.tile:
        work.plan(_sizes(work, jobs, options))
    todo = [
        job
        for job in mine
        if not options.resume
        or not predict_files.is_written(job, options.out, suffixes[job in windowed])
    ]
    failed: list[tuple[int, ValueError]] = []
    notes: list[str] = []
    with _progress() as progress:
        task = progress.add_task("Predicting", total=len(todo), speed="")
        for count, job, found in _worked(work, todo, windowed, options, progress, task):
            if isinstance(found, ValueError):
                failed.append((job.number, found))
            elif found:
                notes.append(found)
            progress.update(task, completed=count)
    return [error for _, error in sorted(failed, key=lambda x: x[0])], notes


def _worked(
    work, todo, windowed, options, progress, task
) -> Iterator[tuple[int, Job, ValueError | str]]:
    """Yields (number done, job, error or note), while files are read and written."""
    with (
        concurrent.futures.ThreadPoolExecutor(2) as readers,
        concurrent.futures.ThreadPoolExecutor(2) as writers,
    ):
        small = [job for job in todo if job not in windowed]
        images = _prefetched(readers, work, small, options)
        writing: collections.deque = collections.deque()
        for count, job in enumerate(todo):

            def done(fraction: float, count: int = count) -> None:
                progress.update(task, completed=count + fraction)

            if job in windowed:
                yield count + 1, job, _windowed(work, job, options, done)
                continue
            image, note = next(images)
            if isinstance(image, ValueError):
                yield count + 1, job, image
                continue
            try:
                result = work.run(image, done)
            except ValueError as error:
                yield count + 1, job, _named(error, job)
                continue
            args = (work, job, options.out, image, result)
            writing.append((job, note, writers.submit(predict_files.write, *args)))
            while len(writing) > _AHEAD or (writing and writing[0][2].done()):
                yield count + 1, *_finished(*writing.popleft())
        while writing:
            yield len(todo), *_finished(*writing.popleft())


def _finished(job: Job, note: str, future) -> tuple[Job, ValueError | str]:
    try:
        future.result()
    except ValueError as error:
        return job, error
    return job, note


def _prefetched(readers, work: Work, jobs: Sequence[Job], options: Any):
    """Yields (image or error, note) of the jobs in order, read ahead."""

    def read(job: Job):
        limit = max(options.max_pixels, limits.MAX_PIXELS if options.tile else 0)
        try:
            return work.models[0].read(job.path, page=job.page, max_pixels=limit)
        except ValueError as error:
            return error, ""
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return UserError(f"{job.path} cannot be read: {reason}."), ""

    waiting: collections.deque = collections.deque()
    for job in jobs:
        waiting.append(readers.submit(read, job))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _windowed(work: Work, job: Job, options: Any, done) -> ValueError | str:
    """Predicts a file that is read in windows."""
    about = work.models[0].description["image"]
    try:
        with TiffWindows(job.path) as image:
            if image.shape[2] != about["channels"] or image.dtype != about["dtype"]:
                raise UserError(
                    f"{job.path} has {image.shape[2]} channels of {image.dtype}: "
                    f"needed {about['channels']} of {about['dtype']} for an image that "
                    f"is read in windows; convert it."
                )
            if work.detect is not None:
                found = work.detected(image, done)
                predict_files.write_objects(work, job, options.out, image, found)
                return ""
            path = options.out / f"{job.name}.tif"
            size = image.shape[0], image.shape[1]
            bands = work.label_bands(image, done)
            predict_files.write_label_tiff(bands, size, path)
    except ValueError as error:
        return _named(error, job)
    return ""


def _named(error: ValueError, job: Job) -> ValueError:
    if str(job.path) in str(error):
        return error
    return UserError(f"{job.path} cannot be predicted: {error}")


def _is_windowed(job: Job, options: Any) -> bool:
    if not options.tile or job.page is not None:
        return False
    if job.path.suffix.lower() not in (".tif", ".tiff"):
        return False
    with contextlib.suppress(ValueError, OSError), TiffWindows(job.path) as image:
        return image.shape[0] * image.shape[1] > options.max_pixels
    return False


def _sizes(work: Work, jobs: Sequence[Job], options: Any) -> list[tuple[int, int]]:
    """Reads the sizes of all images that can be read, from headers if possible."""
    channels, found = work.models[0].description["image"]["channels"], []
    for job in jobs:
        with contextlib.suppress(ValueError, OSError):
            size = inference.image_size(
                job.path,
                channels=channels,
                max_pixels=options.max_pixels,
                page=job.page,
            )
            found.append(size)
    return found


def _about(work: Work, options: Any) -> dict:
    """What must be the same when predictions are resumed."""
    chosen = dataclasses.asdict(work.settings)
    chosen["models"] = [m.description["variables"]["sha256"] for m in work.models]
    chosen["calibrated"] = options.calibrated
    chosen["watershed"] = work.watershed
    return {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.items()}


class _Speed(TextColumn):
    """Images per second."""

    def __init__(self):
        super().__init__("")

    def render(self, task):
        """Formats the speed, empty before the first image."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} images/s" if speed else "")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        transient=True,
    )
