"""Data sets that TFDS has prepared, read without TensorFlow."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from segjax.data import dataset, stored
from segjax.errors import UserError
from segjax.files import images

Feature = str | Callable[[Mapping[str, Any]], np.ndarray]
"""The name of a feature, or a function of an example with decoded images."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class TfdsExamples(Sequence[dict[str, Any]]):
    """Random access to the examples of one split; cheap to pickle."""

    def __init__(
        self,
        directory: str,
        split: str,
        image: Feature,
        label: Feature,
        num_classes: int,
    ):
        self._key = (directory, split, image, label, num_classes)
        self._opened: tuple[Any, dict[str, int | None]] | None = None

    def _source(self) -> tuple[Any, dict[str, int | None]]:
        """Opens TFDS's data source; also returns the channels of image features."""
        if self._opened is None:
            directory, split, *_ = self._key
            builder: Any = tfds.builder_from_directory(directory)
            channels = {}
            for name, feature in builder.info.features.items():
                if isinstance(feature, tfds.features.Image):
                    shape: Any = feature.shape
                    channels[name] = shape[-1]
            raw = {name: tfds.decode.SkipDecoding() for name in channels}
            self._opened = builder.as_data_source(split, decoders=raw), channels
        return self._opened

    def __len__(self) -> int:
        return len(self._source()[0])

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns `image` [H, W, K], `label` [H, W] uint8 or uint16, and `name`."""
        _, split, image, label, num_classes = self._key
        source, channels = self._source()
        place = index.__index__() % len(self)
        where = f"example {place} of {split!r}"
        example = {
            name: _decoded(x, channels[name], f"{name!r} of {where}")
            if name in channels
            else x
            for name, x in source[place].items()
        }
        ids = np.asarray(_select(example, label))
        ids = ids[..., 0] if ids.ndim == 3 and ids.shape[-1] == 1 else ids
        return {
            "image": stored.image(np.asarray(_select(example, image)), where),
            "label": stored.label(ids, num_classes=num_classes, where=where),
            "name": where,
        }

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Returns (height, width), from the image's header if it is a feature."""
        image: Feature = self._key[2]
        source, channels = self._source()
        if not isinstance(image, str) or image not in channels:
            height, width = self[index]["label"].shape
            return height, width
        content = source[index.__index__()][image]
        with PIL.Image.open(io.BytesIO(content)) as header:
            return header.height, header.width

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TfdsExamples) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __repr__(self) -> str:
        return f"TfdsExamples({self._key[0]!r}, {self._key[1]!r})"


def from_tfds(
    name_or_builder: str | Any,
    *,
    image: Feature,
    label: Feature,
    splits: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Loads a TensorFlow Datasets data set that is prepared as array_record.

        data.from_tfds(
            "oxford_iiit_pet",
            image="image",
            label=lambda example: example["segmentation_mask"] - 1,
            classes=("pet", "background", "border"),
            splits={"train": "train[:90%]", "validation": "train[90%:]"},
        )

    Args:
        name_or_builder: `name`, `name/config` or `name/config:version`; or a prepared
            builder.
        image: The name of the image feature, or a function of an example that returns
            the image; image features are decoded to [H, W, K]. Reader processes
            (`Pipeline(num_workers=...)`) need a function that can be pickled.
        label: Likewise, [H, W] or [H, W, 1] class ids; see `data.from_arrays`.
        splits: Maps split names to TFDS's, slices included. None: those of train,
            validation and test that exist.
        classes: Class names; None if the label's feature has names.
        data_dir: TFDS's folder; TFDS_DATA_DIR or ~/tensorflow_datasets by default.

    Raises:
        ValueError: If it is not prepared as array_record, or a feature, split or class
            names are missing.
    """
    builder: Any = name_or_builder
    if isinstance(name_or_builder, str):
        root = pathlib.Path(data_dir or _default_root())
        builder = tfds.builder_from_directory(_directory(name_or_builder, root))
    info: Any = builder.info
    _check_prepared(info)
    for feature in (image, label):
        if isinstance(feature, str) and feature not in info.features:
            raise UserError(
                f"{info.full_name} has no feature {feature!r}, got "
                f"{', '.join(sorted(info.features))}. Name one of them."
            )
    names = _class_names(info, label, classes)
    if splits is None:
        order = ("train", "validation", "test")
        splits = {split: split for split in order if split in info.splits}
    directory = os.fspath(builder.data_dir)
    made = {
        ours: TfdsExamples(directory, theirs, image, label, len(names))
        for ours, theirs in splits.items()
    }
    fingerprint = _fingerprint(info, names, made)
    return dataset.Dataset(f"tfds/{info.full_name}", names, made, fingerprint)


def _default_root() -> str:
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def _directory(name: str, root: pathlib.Path) -> pathlib.Path:
    """Finds a data set's folder; its newest version unless one is named."""
    place, _, version = name.partition(":")
    found = (root.expanduser() / place).glob(f"{version or '*.*.*'}/dataset_info.json")
    ordered = sorted(found, key=lambda path: _numbers(path.parent.name))
    if not ordered:
        raise UserError(
            f"{name} is not prepared in {root}: run `tfds build {place} --data_dir "
            f"{root} --file_format=array_record`."
        )
    return ordered[-1].parent


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]


def _check_prepared(info: Any) -> None:
    form = info.file_format.value if info.file_format else "none"
    if not info.splits or form != "array_record":
        got = f"{form} files" if info.splits else "no files"
        raise UserError(
            f"{info.full_name} needs to be prepared as array_record, got {got}: run "
            f"`tfds build {info.name} --file_format=array_record`, or pass "
            f'file_format="array_record" to download_and_prepare.'
        )


def _class_names(
    info: Any, label: Feature, classes: Sequence[str] | None
) -> tuple[str, ...]:
    if classes is None and isinstance(label, str):
        feature = info.features[label]
        inner = getattr(feature, "feature", feature)  # Of a Sequence of labels.
        classes = getattr(inner, "names", None)
    if not classes:
        raise UserError(
            f"{info.full_name} has no class names for the label: pass classes=(...), "
            f"one name for each id from 0."
        )
    return tuple(classes)


def _fingerprint(info: Any, names: Sequence[str], splits: Mapping[str, Any]) -> str:
    """Digests TFDS's metadata of its files, and each split's first example."""
    total = hashlib.sha256(repr((info.full_name, names)).encode())
    for split, about in sorted(info.splits.items()):
        total.update(repr((split, about.shard_lengths, about.num_bytes)).encode())
    for split, examples in splits.items():
        total.update(repr((split, examples._key[1], len(examples))).encode())
        if len(examples):
            for name, value in sorted(examples[0].items()):
                x = np.asarray(value)
                total.update(f"{name} {x.dtype} {x.shape}".encode() + x.tobytes())
    return total.hexdigest()


def _select(example: Mapping[str, Any], feature: Feature) -> Any:
    return example[feature] if isinstance(feature, str) else feature(example)


def _decoded(content: bytes, channels: int | None, where: str) -> np.ndarray:
    """Decodes a PNG or JPEG to [H, W, K] with the channels that its feature has."""
    images.check_png(content, where)
    with PIL.Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
        if not image.mode.startswith("I"):
            if channels in _MODES:
                image = image.convert(_MODES[channels])
            elif image.mode not in _MODES.values():
                image = image.convert("RGB")
        pixels = np.array(image)
    pixels = pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)
    return pixels[..., None] if pixels.ndim == 2 else pixels
