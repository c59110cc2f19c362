"""Prepared data sets: written once, then read by random access."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds

from segjax.data import staging
from segjax.data.builders import base, sources
from segjax.data.records import Examples, damaged
from segjax.errors import UserError
from segjax.files import limits, reading

_NO_SPACE_OF_TFDS = "Not enough disk space"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Class names, and random access to the examples of each split.

    Attributes:
        name: Name of the data set and of the view.
        classes: Class names; a class id is a position in this tuple.
        splits: "train", "validation" and, if labeled, "test"; each any sequence of
            dicts with image uint8, uint16 or float32 [H, W, K], label uint8 [H, W]
            (255 is ignored) or uint16 (65535 is ignored), and name str; data sets with
            instances add instances uint16 [H, W], 0 for background; further entries
            can be fields of a pipeline. Reader processes need sequences that can be
            pickled. A method `image_size(number) -> (height, width)` avoids decoding.
        fingerprint: Digest of every stored pixel and of the view; equal for equal
            data, wherever and from whatever files it was prepared.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[dict[str, Any]]]
    fingerprint: str


def image_size(examples: Any, index: SupportsIndex) -> tuple[int, int]:
    """Returns (height, width) of one of a split's examples, undecoded if possible."""
    if hasattr(examples, "image_size"):
        return examples.image_size(index)
    height, width = np.shape(examples[index]["label"])
    return height, width


def example_name(examples: Any, index: SupportsIndex) -> str:
    """Returns the name of one of a split's examples, undecoded if possible."""
    if hasattr(examples, "name"):
        return examples.name(index)
    return str(examples[index].get("name", ""))


def view(
    directory: pathlib.Path, name: str, splits: Mapping[str, str] | None = None
) -> Dataset:
    """Makes a `Dataset` of a prepared folder.

    Args:
        directory: Returned by `prepare`.
        name: Name of the view.
        splits: Maps split names to TFDS's, slices and sums included, such as
            `"train[:80%]"`; None for all that exist, under their own names.
    """
    metadata = _read_metadata(directory)
    if splits is None:
        order = ("train", "validation", "test")
        splits = {split: split for split in order if split in metadata["digests"]}
    parts = [name, directory.name, metadata["digests"], dict(splits)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    return Dataset(
        name=name,
        classes=tuple(metadata["classes"]),
        splits={k: Examples(directory, v) for k, v in splits.items()},
        fingerprint=digest.hexdigest(),
    )


def fold_view(directory: pathlib.Path, name: str, fold: int) -> Dataset:
    """Makes a `Dataset` whose validation is one fold, and whose train is the others.

    Args:
        directory: Returned by `prepare`; its metadata has the sizes of the `folds`.
        name: Name of the data set.
        fold: From 0.
    """
    metadata = _read_metadata(directory)
    sizes = metadata["folds"]
    start = sum(sizes[:fold])
    stop, total = start + sizes[fold], sum(sizes)
    # TFDS rejects empty slices, so the first and the last fold have one part.
    around = [f"train[:{start}]"] * (start > 0) + [f"train[{stop}:]"] * (stop < total)
    splits = {"train": "+".join(around), "validation": f"train[{start}:{stop}]"}
    rest = {split: split for split in metadata["digests"] if split != "train"}
    return view(directory, f"{name}/fold{fold}of{len(sizes)}", splits | rest)


def prepared_splits(directory: pathlib.Path) -> frozenset[str]:
    """Names of the splits of a prepared folder."""
    return frozenset(_read_metadata(directory)["digests"])


def _read_metadata(directory: pathlib.Path) -> dict[str, Any]:
    """Reads the builder's metadata: `classes` and `digests`."""
    path = directory / "metadata.json"
    try:
        metadata = json.loads(reading.read_bytes(path, max_bytes=limits.TEXT_BYTES))
        fits = isinstance(metadata["digests"], dict) and all(
            isinstance(name, str) for name in metadata["classes"]
        )
        # Metadata written by earlier versions have no checksum.
        checksum = base.checksum(metadata)
        fits &= metadata.get(base.CHECKSUM, checksum) == checksum
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        fits = False
    if not fits:
        raise UserError(damaged(directory, f"{path.name} is not what was written"))
    return metadata


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Returns the folder of prepared data: `data_dir`, SEGJAX_DATA_DIR or a default."""
    default = "~/.cache/segjax/datasets"
    root = data_dir or os.environ.get("SEGJAX_DATA_DIR") or default
    return pathlib.Path(root).expanduser().absolute()


def prepare_source(
    builder: type[base.Builder],
    source: str | os.PathLike | None,
    *,
    data_dir: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Prepares a data set from the user's download, unless that was done before.

    The key of a preparation is a digest of the names, sizes and checksums (in a zip) or
    modification times (in a folder) of the source's files: a changed source is prepared
    again, next to the old one.

    Args:
        builder: The data set's builder.
        source: A folder or zip that holds `builder.PARTS`; None for the data prepared
            before, if there is only one source.
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
    return prepare(builder, data_dir=data_dir, source=parts, key=key)


def _find(builder: type[base.Builder], path: pathlib.Path, part: str) -> sources.Tree:
    alone = len(builder.PARTS) == 1
    tree = sources.find(path, part, needs=builder.NEEDS, alone=alone)
    for folder in builder.FOLDERS:
        if folder and not tree.files(folder):
            raise UserError(
                f"{tree.shown(folder)} is missing or empty: needed {builder.NEEDS}."
            )
    return tree


def _prepared_before(builder: type[base.Builder], root: pathlib.Path) -> pathlib.Path:
    pattern = f"*/{builder.VERSION}/dataset_info.json"
    found = sorted((root / builder.name).glob(pattern))
    if not found:
        raise UserError(
            f"{builder.name} is not prepared in {root}: needed --source DIR (or "
            f"source=) with {builder.NEEDS}; got no source."
        )
    if len(found) > 1:
        raise UserError(
            f"{builder.name} was prepared from {len(found)} different sources in "
            f"{root / builder.name}: needed --source DIR (or source=) to choose one; "
            f"pass it, or delete the other folders."
        )
    return found[0].parent


def prepare(
    builder: type[base.Builder],
    *,
    data_dir: str | os.PathLike | None = None,
    source: Any = None,
    key: str = "",
) -> pathlib.Path:
    """Prepares a data set unless that was done before.

    Everything is written to a temporary folder, which is renamed when it is complete:
    an interruption never leaves an incomplete data set.

    Args:
        builder: The data set's builder.
        data_dir: See `data_root`.
        source: Passed to builders that read the user's files.
        key: Distinguishes preparations from different sources.

    Returns:
        The folder, `<root>/<name>/[<key>/]<version>`, readable by its owner only.

    Raises:
        ValueError: If the source is invalid, the folder is damaged, or the disk is
            full.
    """
    root = data_root(data_dir)
    final = root / builder.name / key / str(builder.VERSION)
    if (final / "dataset_info.json").is_file():
        return final
    # In this order, since another process may rename its folder right now.
    if final.exists() and not (final / "dataset_info.json").is_file():
        raise UserError(damaged(final, "dataset_info.json is missing"))
    with staging.folder(root) as folder, _naming_full_disks(root):
        _build(builder, folder, source)
        made = folder / builder.name / str(builder.VERSION)
        _make_private(made)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(final)
        except OSError:
            # Another process was faster, with the same result.
            if not (final / "dataset_info.json").is_file():
                raise
    return final


def _make_private(folder: pathlib.Path) -> None:
    """Removes access for other users, who may have no access to the source."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)


@contextlib.contextmanager
def _naming_full_disks(root: pathlib.Path) -> Iterator[None]:
    """Turns errors of a full disk, known by their text only, into a ValueError."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.replace(_NO_SPACE_OF_TFDS, os.strerror(errno.ENOSPC))
        causes = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        cause = next((c for c in causes if c in reason), None)
        if cause is None:
            raise
        raise UserError(
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
