"""A look at every image and mask of a data set: what training will be given."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segjax import ops
from segjax.data.objects import objects_of
from segjax.errors import UserError
from segjax.planning import duplicates
from segjax.planning.alignment import Alignment, alignment

BINS = 64


@dataclasses.dataclass(frozen=True)
class Place:
    """An image: its split, its position in it, and its name."""

    split: str
    number: int
    name: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was found in one image.

    Attributes:
        place: Which image.
        size: (height, width), in pixels.
        kind: Dtype and number of channels, such as "uint8 x 3".
        histogram: int64 [K, 64]: pixels of each channel by intensity.
        pixels: int64 [C + 1]: pixels of each class; the last are ignored ones.
        objects: Number of objects; None if the data set has none.
        alignment: Of the mask's outlines; None if they are too short.
    """

    place: Place
    size: tuple[int, int]
    kind: str
    histogram: np.ndarray
    pixels: np.ndarray
    objects: int | None
    alignment: Alignment | None

    @property
    def classes(self) -> list[int]:
        """The class ids that it has."""
        return np.flatnonzero(self.pixels[:-1]).tolist()


@dataclasses.dataclass(frozen=True)
class Survey:
    """All images of a data set.

    Attributes:
        name: Of the data set.
        classes: C names.
        splits: Number of images of each split, and of those that were read.
        seen: What was found in each image, split by split.
        span: (lowest, highest) intensity of the histograms.
        twins: Pairs of equal and nearly equal images; positions in `seen`.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[int, int]]
    seen: tuple[Seen, ...]
    span: tuple[float, float]
    twins: tuple[duplicates.Pair, ...]

    @property
    def leaks(self) -> list[duplicates.Pair]:
        """The twins of which two splits have one each."""
        return [t for t in self.twins if self._split(t.first) != self._split(t.second)]

    @property
    def empty(self) -> list[Seen]:
        """Images without a pixel of a class but 0."""
        return [one for one in self.seen if not set(one.classes) - {0}]

    @property
    def shifted(self) -> list[Seen]:
        """Images whose mask fits elsewhere by half as much again, the worst first."""
        doubtful = [s for s in self.seen if s.alignment and s.alignment.gain >= 1.5]
        return sorted(doubtful, key=lambda s: -s.alignment.gain)  # type: ignore

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """Images of each (height, width)."""
        return Counter(one.size for one in self.seen)

    @property
    def co_occurrence(self) -> np.ndarray:
        """[C, C]: of the images with class i, the fraction with class j; or NaN."""
        has = np.array([one.pixels[:-1] > 0 for one in self.seen], np.float64)
        count = np.diag(has.T @ has)[:, None]
        return np.divide(
            has.T @ has,
            count,
            out=np.full(2 * count.shape[:1], np.nan),
            where=count > 0,
        )

    def _split(self, position: int) -> str:
        return self.seen[position].place.split


def survey(
    dataset: Any,
    *,
    most: int = 1_000,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Reads the images and masks of all splits.

    Args:
        dataset: A `data.Dataset`.
        most: The largest number of images to read of a split; evenly spaced if it has
            more.
        progress: Called with the number of images read, and of all.

    Raises:
        ValueError: If there is no image.
    """
    chosen = {
        split: range(0, len(x), max(1, math.ceil(len(x) / most)))
        for split, x in dataset.splits.items()
    }
    total = sum(map(len, chosen.values()))
    if not total:
        raise UserError(f"{dataset.name} has no image: needed at least one.")
    span, seen, digests, thumbnails = None, [], [], []
    for split, numbers in chosen.items():
        for number in numbers:
            example = dataset.splits[split][number]
            image = np.asarray(example["image"])
            span = _span(image) if span is None else span
            place = Place(split, number, str(example.get("name", number)))
            seen.append(_seen(example, image, place, span, len(dataset.classes)))
            digests.append(duplicates.digest(image))
            thumbnails.append(duplicates.thumbnail(image))
            if progress is not None:
                progress(len(seen), total)
    assert span is not None
    return Survey(
        name=dataset.name,
        classes=tuple(dataset.classes),
        splits={k: (len(dataset.splits[k]), len(v)) for k, v in chosen.items()},
        seen=tuple(seen),
        span=span,
        twins=tuple(duplicates.pairs(digests, thumbnails)),
    )


def _seen(
    example: Mapping[str, Any],
    image: np.ndarray,
    place: Place,
    span: tuple[float, float],
    num_classes: int,
) -> Seen:
    label = np.asarray(example["label"])
    ids = np.where(label == ops.ignore_index(label.dtype), num_classes, label)
    outlined = np.asarray(example.get("instances", ids))
    return Seen(
        place=place,
        size=(label.shape[0], label.shape[1]),
        kind=f"{image.dtype} x {image.shape[-1]}",
        histogram=_histogram(image, span),
        pixels=np.bincount(ids.ravel(), minlength=num_classes + 1),
        objects=_num_objects(example),
        alignment=alignment(image, outlined.astype(np.int64)),
    )


def _num_objects(example: Mapping[str, Any]) -> int | None:
    """Counts objects; of an instance map without making a mask of each."""
    if "objects" in example:
        return len(objects_of(example).classes)
    if "instances" in example:
        return int(np.count_nonzero(np.unique(np.asarray(example["instances"]))))
    return None


def _span(image: np.ndarray) -> tuple[float, float]:
    """The range of a dtype; of floats and 16 bits, that of the first image."""
    if image.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(image.min()), float(image.max())
    return low, high if high > low else low + 1


def _histogram(image: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """What is outside the span counts as its ends."""
    scaled = (image.astype(np.float32) - span[0]) * (BINS / (span[1] - span[0]))
    bins = np.clip(np.nan_to_num(scaled), 0, BINS - 1).astype(np.int64)
    channels = bins.reshape(math.prod(bins.shape[:-1]), bins.shape[-1]).T
    return np.stack([np.bincount(x, minlength=BINS) for x in channels])
