"""Prepared data sets: made once, then read by position."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from segjax.data import staging
from segjax.data.builders import base, sources
from segjax.data.records import Examples, damaged
from segjax.files import limits, reading

_NO_SPACE_OF_TFDS = "Not enough disk space"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set: class names, and random access to its examples.

    Attributes:
        name: Which data set, and which view of it.
        classes: Class names; a class id is a position in this tuple.
        splits: "train", "validation" and, where labelled, "test"; each any sequence
            of dicts with image uint8, uint16 or float32 [H, W, K], label uint8 [H, W]
            (255 is ignored) or uint16 (65535 is ignored), and name str; data sets with
            instances add instances uint16 [H, W], 0 for background; further entries
            can be fields of a pipeline. Reader processes need sequences that can be
            pickled. A method `image_size(number) -> (height, width)` saves decoding.
        fingerprint: Digest of every stored pixel and of the view; equal for equal
            data, wherever and from whichever files it was prepared.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[dict[str, Any]]]
    fingerprint: str


def view(
    directory: pathlib.Path, name: str, splits: Mapping[str, str] | None = None
) -> Dataset:
    """Names parts of a prepared folder.

    Args:
        directory: What `prepared` returned.
        name: Name of the view.
        splits: Our split's name to TFDS's, slices and sums included, such as
            `"train[:80%]"`; None for all there are, under their own names.
    """
    described = _described(directory)
    if splits is None:
        order = ("train", "validation", "test")
        splits = {split: split for split in order if split in described["digests"]}
    parts = [name, directory.name, described["digests"], dict(splits)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    return Dataset(
        name=name,
        classes=tuple(described["classes"]),
        splits={k: Examples(directory, v) for k, v in splits.items()},
        fingerprint=digest.hexdigest(),
    )


def _described(directory: pathlib.Path) -> dict[str, Any]:
    """What the builder kept beside the examples: `classes` and `digests`."""
    path = directory / "metadata.json"
    try:
        described = json.loads(reading.read_bytes(path, most=limits.TEXT_BYTES))
        fits = isinstance(described["digests"], dict) and all(
            isinstance(name, str) for name in described["classes"]
        )
        # Data that were prepared before there was a seal have none.
        fits &= described.get(base.SEAL, base.seal(described)) == base.seal(described)
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(damaged(directory, f"{path.name} is not what was written"))
    return described


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Where prepared data lie: the argument, SEGJAX_DATA_DIR, or the cache."""
    default = "~/.cache/segjax/datasets"
    root = data_dir or os.environ.get("SEGJAX_DATA_DIR") or default
    return pathlib.Path(root).expanduser().absolute()


def from_source(
    builder: type[base.Builder],
    source: str | os.PathLike | None,
    *,
    data_dir: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Prepares a data set from the user's own download, or finds it prepared.

    The key of a preparation is a digest of the names, sizes and checksums (in a zip)
    or times of change (in a folder) of the source's files: a source that changed is
    prepared anew, beside the old one.

    Args:
        builder: What to prepare.
        source: A folder or zip that holds `builder.PARTS`; None for what was
            prepared before, if that is not ambiguous.
        data_dir: See `data_root`.

    Returns:
        The prepared folder.
    """
    if source is None:
        return _prepared_before(builder, data_root(data_dir))
    path = sources.existing(source, builder.NEEDS)
    parts = {part: _find(builder, path, part) for part in builder.PARTS}
    digests = "".join(
        sources.digest(tree, folder)
        for tree in parts.values()
        for folder in builder.FOLDERS
    )
    key = hashlib.sha256(digests.encode()).hexdigest()[:12]
    return prepared(builder, data_dir=data_dir, source=parts, key=key)


def _find(builder: type[base.Builder], path: pathlib.Path, part: str) -> sources.Tree:
    alone = len(builder.PARTS) == 1
    tree = sources.find(path, part, needs=builder.NEEDS, alone=alone)
    for folder in builder.FOLDERS:
        if folder and not tree.files(folder):
            raise ValueError(
                f"{tree.shown(folder)} is missing or empty: needed {builder.NEEDS}."
            )
    return tree


def _prepared_before(builder: type[base.Builder], root: pathlib.Path) -> pathlib.Path:
    pattern = f"*/{builder.VERSION}/dataset_info.json"
    found = sorted((root / builder.name).glob(pattern))
    if not found:
        raise ValueError(
            f"{builder.name} is not prepared in {root}: needed --source DIR (or "
            f"source=) with {builder.NEEDS}; got no source."
        )
    if len(found) > 1:
        raise ValueError(
            f"{builder.name} was prepared from {len(found)} different sources in "
            f"{root / builder.name}: needed --source DIR (or source=) to tell which; "
            f"pass it, or delete the folders that are not wanted."
        )
    return found[0].parent


def prepared(
    builder: type[base.Builder],
    *,
    data_dir: str | os.PathLike | None = None,
    source: Any = None,
    key: str = "",
) -> pathlib.Path:
    """Prepares a data set unless that was done before.

    Everything is written into a temporary sibling, which takes its final name when
    it is complete: whatever interrupts it, no half-prepared data set is left.

    Args:
        builder: What to prepare.
        data_dir: See `data_root`.
        source: Passed to the builder, where it reads the user's files.
        key: Tells apart preparations from different sources.

    Returns:
        The folder, `<root>/<name>/[<key>/]<version>`, which only its maker may read.

    Raises:
        ValueError: If the source is not as it must be, the folder is damaged, or the
            disk is full.
    """
    root = data_root(data_dir)
    final = root / builder.name / key / str(builder.VERSION)
    if (final / "dataset_info.json").is_file():
        return final
    # Looked at in this order: another process may give it its name just now.
    if final.exists() and not (final / "dataset_info.json").is_file():
        raise ValueError(damaged(final, "dataset_info.json is missing"))
    with staging.folder(root) as folder, _naming_full_disks(root):
        _build(builder, folder, source)
        made = folder / builder.name / str(builder.VERSION)
        _make_private(made)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(final)
        except OSError:
            # Another process was faster; what it made is as good.
            if not (final / "dataset_info.json").is_file():
                raise
    return final


def _make_private(folder: pathlib.Path) -> None:
    """Copies of images may be seen by nobody who could not see the images."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)


@contextlib.contextmanager
def _naming_full_disks(root: pathlib.Path) -> Iterator[None]:
    """Array records are written by a library whose errors only tell in their text."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.replace(_NO_SPACE_OF_TFDS, os.strerror(errno.ENOSPC))
        causes = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        cause = next((c for c in causes if c in reason), None)
        if cause is None:
            raise
        raise ValueError(
            f"prepared data could not be written to {root}: {cause}. Make room, or set "
            f"SEGJAX_DATA_DIR or data_dir to another folder."
        ) from error


def _build(builder: type[base.Builder], folder: pathlib.Path, source: Any) -> None:
    tfds.disable_progress_bar()  # `base.Progress` shows one bar, on stderr.
    made = builder(data_dir=os.fspath(folder), source=source)
    made.download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
