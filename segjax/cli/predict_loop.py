"""The loop of `segjax predict`: reads ahead, computes, and writes behind."""

import collections
import concurrent.futures
import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from segjax import multihost
from segjax.cli import (
    predict_files,
    predict_memory,
    predict_progress,
    predict_read,
)
from segjax.cli.predict_inputs import Job
from segjax.cli.predict_memory import Size
from segjax.cli.predict_work import Result, Tiles, Work
from segjax.errors import UserError

_AHEAD = 4
"""Images that are read before, and results that are written after, the computation."""

Done = Callable[[float], None]
"""Called with the finished part of an image, in [0, 1]."""
Finished = tuple[Job, ValueError | str]
"""An image, and why it failed, or a note on it, or ""."""


def predict_all(
    work: Work, jobs: Sequence[Job], options: Any
) -> tuple[list[ValueError], list[str]]:
    """Predicts all images; returns the errors of those that failed, and notes."""
    mine = jobs[jax.process_index() :: jax.process_count()]
    windowed = {job for job in mine if predict_read.is_windowed(job, options)}
    suffixes = {
        wide: predict_files.suffixes_of(work, windowed=wide) for wide in (False, True)
    }
    _start(work, mine, [*suffixes[False], *suffixes[True]], options)
    todo = [
        job
        for job in mine
        if not options.resume
        or not predict_files.is_written(job, options.out, suffixes[job in windowed])
    ]
    # Planned for all images, so that a resumed run computes each one as a whole run.
    sizes, rows = _plan(work, jobs, options)
    chunks = _chunks([job for job in todo if job not in windowed], sizes, rows)
    failed: list[tuple[int, ValueError]] = []
    notes: list[tuple[int, str]] = []
    with predict_progress.bar() as progress:
        task = progress.add_task("Predicting", total=len(todo), speed="")

        def done(part: float) -> None:
            progress.update(task, completed=len(failed) + len(notes) + part)

        large = [job for job in todo if job in windowed]
        for job, found in _worked(work, chunks, large, options, done):
            if isinstance(found, ValueError):
                failed.append((job.number, found))
            else:
                notes.append((job.number, found))
            done(0.0)
    by_number = operator.itemgetter(0)
    return (
        [error for _, error in sorted(failed, key=by_number)],
        [note for _, note in sorted(notes, key=by_number) if note],
    )


def _start(
    work: Work, jobs: Sequence[Job], suffixes: Sequence[str], options: Any
) -> None:
    """Makes the output folder, and removes what a killed process left in it."""
    if options.resume:
        predict_files.remove_unfinished(options.out, jobs, suffixes)
    if jax.process_index() == 0:
        about = _about(work, options)
        predict_files.start(options.out, about, resume=options.resume)
    if jax.process_count() > 1:
        multihost.barrier("predict")


def _plan(
    work: Work, jobs: Sequence[Job], options: Any
) -> tuple[dict[Job, Size], dict[Size, int]]:
    """Fixes padded sizes and the rows of batches of the images predicted whole."""
    if options.tile:
        return {}, {}
    read = {job: predict_read.size_of(work, job, options) for job in jobs}
    sizes = {
        job: size
        for job, size in read.items()
        if size is not None and predict_memory.tiles_of(work, size) is None
    }
    work.plan(list(sizes.values()))
    return sizes, predict_memory.rows_by_size(list(sizes.values()))


def _chunks(
    jobs: Sequence[Job], sizes: Mapping[Job, Size], rows: Mapping[Size, int]
) -> list[tuple[list[Job], int]]:
    """Groups images of one size; (jobs, rows of the batch), the full ones first."""
    made: list[tuple[list[Job], int]] = []
    waiting: dict[Size, list[Job]] = {}
    for job in jobs:
        size = sizes.get(job)
        if size is None or rows[size] == 1:
            made.append(([job], 1))
            continue
        group = waiting.setdefault(size, [])
        group.append(job)
        if len(group) == rows[size]:
            made.append((waiting.pop(size), rows[size]))
    return [*made, *((group, rows[size]) for size, group in waiting.items())]


def _worked(
    work: Work,
    chunks: Sequence[tuple[list[Job], int]],
    windowed: Sequence[Job],
    options: Any,
    done: Done,
) -> Iterator[Finished]:
    """Predicts, while files are read and written."""
    groups = [group for group, _ in chunks]
    ahead = max([_AHEAD, *(rows for _, rows in chunks)])
    images = predict_read.prefetched(work, groups, options, ahead=ahead)
    with concurrent.futures.ThreadPoolExecutor(2) as writers:
        writing: collections.deque = collections.deque()
        for (group, rows), read in zip(chunks, images, strict=True):
            items = []
            for job, (image, note) in zip(group, read, strict=True):
                if isinstance(image, ValueError):
                    yield job, image
                else:
                    items.append((job, image, note))
            for job, image, note, result in _computed(work, items, rows, done):
                if isinstance(result, ValueError):
                    yield job, _named(result, job)
                    continue
                args = (work, job, options.out, image, result)
                writing.append((job, note, writers.submit(predict_files.write, *args)))
            while len(writing) > _AHEAD or (writing and writing[0][2].done()):
                yield _written(*writing.popleft())
        while writing:
            yield _written(*writing.popleft())
    for job in windowed:
        yield job, _windowed(work, job, options, done)


def _computed(
    work: Work, items: Sequence[tuple[Job, Any, str]], rows: int, done: Done
) -> Iterator[tuple[Job, Any, str, Result | ValueError]]:
    """Yields (job, image, note, result or error) of images that were read together."""
    if len({image.shape for _, image, _ in items}) == 1 and rows > 1:
        try:
            results = work.run([image for _, image, _ in items], rows=rows)
        except ValueError:
            pass  # One by one, to learn which; or because memory is not enough.
        else:
            for item, result in zip(items, results, strict=True):
                yield *item, result
            return
    for job, image, note in items:
        tiles = predict_memory.tiles_of(work, image.shape[:2])
        try:
            if tiles is None:
                (result,) = work.run([image])
            else:
                result = work.run_tiles(image, tiles, done)
        except ValueError as error:
            yield job, image, note, error
            continue
        if tiles is not None and work.settings.tile is None:
            size = image.shape[:2]
            note = f"{note} {predict_memory.note(work, str(job.path), size, tiles)}"
        yield job, image, note.strip(), result


def _written(job: Job, note: str, future: concurrent.futures.Future) -> Finished:
    try:
        future.result()
    except ValueError as error:
        return job, error
    return job, note


def _windowed(work: Work, job: Job, options: Any, done: Done) -> ValueError | str:
    """Predicts a file that is read in windows."""
    tiles = Tiles(options.tile)
    try:
        with predict_read.windows_of(work, job) as image:
            if work.detect is not None:
                found = work.detected(image, tiles, done)
                predict_files.write_objects(work, job, options.out, image, found)
                return ""
            path = options.out / f"{job.name}.tif"
            size = image.shape[0], image.shape[1]
            bands = work.label_bands(image, tiles, done)
            predict_files.write_label_tiff(bands, size, path)
    except ValueError as error:
        return _named(error, job)
    return ""


def _named(error: ValueError, job: Job) -> ValueError:
    if str(job.path) in str(error):
        return error
    return UserError(f"{job.path} cannot be predicted: {error}")


def _about(work: Work, options: Any) -> dict:
    """What must be the same when predictions are resumed."""
    chosen = dataclasses.asdict(work.settings)
    chosen["models"] = [m.description["variables"]["sha256"] for m in work.models]
    chosen["calibrated"] = options.calibrated
    chosen["watershed"] = work.watershed
    return {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.items()}
