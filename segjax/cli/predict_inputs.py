"""The images of `segjax predict`, and the names of their results."""

import collections
import dataclasses
import glob
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from segjax import inference
from segjax.errors import UserError

RESERVED = ("objects.json", "objects.csv")
"""Names of the tables of a folder."""


@dataclasses.dataclass(frozen=True)
class Job:
    """An image to predict.

    Attributes:
        number: From 1, in the order of the command line.
        path: The file.
        page: Of a file with several images.
        name: Of its results: a path relative to the output folder, without suffix.
    """

    number: int
    path: pathlib.Path
    page: inference.Page
    name: str


def find_images(names: Sequence[str], out: pathlib.Path) -> list[pathlib.Path]:
    """Lists images in the given order, those of folders and globs sorted by name.

    Args:
        names: Images, folders, whose subfolders are searched too, or globs.
        out: The output folder, whose files are left out of folders.

    Raises:
        ValueError: If a name does not exist, or holds no image.
    """
    found: dict[pathlib.Path, None] = {}
    for name in names:
        images = list(_images(name, out.resolve()))
        if not images and not pathlib.Path(name).exists() and not glob.has_magic(name):
            raise UserError(
                f"{name} does not exist: needed an image, a folder or a glob; check "
                f"the path."
            )
        if not images:
            kinds = ", ".join(inference.SUFFIXES)
            raise UserError(
                f"{name} holds no image. Give images ({kinds}), folders or globs."
            )
        found |= dict.fromkeys(images)
    return list(found)


def make_jobs(
    paths: Sequence[pathlib.Path],
    out: pathlib.Path,
    suffixes: Sequence[str],
    *,
    channels: int,
) -> list[Job]:
    """Names the results of images: NAME of NAME.jpg, with folders where names collide.

    Args:
        paths: The images.
        out: The output folder.
        suffixes: What is appended to the name of an image, such as `_overlay.png`.
        channels: K of the model.

    Raises:
        ValueError: If a result would lie in a folder that holds images.
    """
    images = [
        (path, page)
        for path in paths
        for page in inference.pages_of(path, channels=channels)
    ]
    parents = [str(path.absolute().parent) for path in paths]
    common = pathlib.Path(os.path.commonpath(parents)) if parents else pathlib.Path()
    levels = [0] * len(images)
    for _ in range(2):
        names = [_name(*x, common, n) for x, n in zip(images, levels, strict=True)]
        owners = collections.defaultdict(set)
        for i, name in enumerate(names):
            for suffix in suffixes:
                owners[f"{name}{suffix}"].add(i)
        clashing = {i for own in owners.values() if len(own) > 1 for i in own}
        clashing |= {i for name in RESERVED for i in owners.get(name, ())}
        levels = [n + (i in clashing) for i, n in enumerate(levels)]
    names = [_name(*x, common, n) for x, n in zip(images, levels, strict=True)]
    jobs = [
        Job(number, path, page, name)
        for number, ((path, page), name) in enumerate(
            zip(images, names, strict=True), start=1
        )
    ]
    _check(jobs, out, suffixes)
    return jobs


def _images(name: str, out: pathlib.Path) -> Iterator[pathlib.Path]:
    path = pathlib.Path(name)
    if path.is_dir():
        is_inside = path.resolve() in out.parents  # Then it holds results.
        for found in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
            if hidden or (is_inside and out in found.resolve().parents):
                continue
            if _is_image(found):
                yield found
    elif path.exists():
        yield path
    else:
        found = (pathlib.Path(p) for p in sorted(glob.glob(name, recursive=True)))
        yield from (p for p in found if _is_image(p))


def _is_image(path: pathlib.Path) -> bool:
    return path.is_file() and path.suffix.lower() in inference.SUFFIXES


def _name(
    path: pathlib.Path, page: inference.Page, common: pathlib.Path, level: int
) -> str:
    """Levels: the stem, with its folder below the common one, with its suffix too."""
    name = path.name if level > 1 else path.stem
    if isinstance(page, int):
        name = f"{name}_page{page + 1}"
    elif page is not None:
        name = "_".join([name, re.sub(r"[^\w.-]", "_", page)])
    if not level:
        return name
    return (path.absolute().parent.relative_to(common) / name).as_posix()


def _check(jobs: Sequence[Job], out: pathlib.Path, suffixes: Sequence[str]) -> None:
    """Raises a ValueError if a result could overwrite an image or another result."""
    # Through links too: what lies there may be the only copy.
    folders = {job.path.parent.resolve(): job.path for job in jobs}
    folders |= {job.path.resolve().parent: job.path for job in jobs}
    made: dict[str, Job] = {}
    for job in jobs:
        place = (out / job.name).parent.resolve()
        if place in folders:
            raise UserError(
                f"{folders[place]} lies in {place if job.name.count('/') else out}, "
                f"where results would be written, perhaps over images. Give --out "
                f"another folder."
            )
        for suffix in suffixes:
            other = made.setdefault(f"{job.name}{suffix}", job)
            if other != job:
                raise UserError(
                    f"{other.path} and {job.path} would both be written as "
                    f"{job.name}{suffix}. Predict them into two folders."
                )
