"""What `segjax predict` computes for one image."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from segjax import inference
from segjax.errors import UserError
from segjax.inference import detection, regions, transforms, windows
from segjax.inference.objects import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compute; see the flags of `segjax predict`."""

    tile: int | None
    overlap: float
    tta: bool
    kept: tuple[int, ...] | None
    min_area: int
    objects: bool
    probabilities: bool
    uncertainty: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What was computed for one image; parts that were not asked for are None."""

    labels: np.ndarray
    objects: Objects | None = None
    probabilities: np.ndarray | None = None
    uncertainty: dict[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How an image is cut.

    Attributes:
        side: Of a tile, in pixels.
        batch_size: Tiles per call; None for `windows.default_batch_size()`.
    """

    side: int
    batch_size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Predicts images with one or several models.

    Attributes:
        models: The models, the first of which reads the images.
        predict: Probabilities, and disagreement if wanted; None for detectors.
        detect: Detections; None for other models.
        settings: What to compute.
        plan: Fixes padded sizes; see `Model.plan`.
        temporary_bytes: See `Model.temporary_bytes`; the largest of the models.
        watershed: Content of RUN/instances.json; None to find connected components.
    """

    models: Sequence[inference.Model]
    predict: inference.PredictFn | None
    detect: inference.DetectFn | None
    settings: Settings
    plan: Callable[[Sequence[tuple[int, int]]], None]
    temporary_bytes: Callable[[int], int]
    watershed: dict[str, Any] | None

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may have many classes, or none."""
        return self.models[0].description["task"] == "multilabel"

    def run(self, images: Sequence[np.ndarray], *, rows: int = 1) -> list[Result]:
        """Predicts whole images of one size in one call of the network.

        Args:
            images: Each [H, W, K].
            rows: Of the batch, which copies of the first image complete.
        """
        batch = np.stack([*images, *[images[0]] * (rows - len(images))])
        if self.detect is not None:
            found = self.detect(batch)[: len(images)]
            return [_of_objects(self._kept(x)) for x in found]
        assert self.predict is not None
        made = np.asarray(self.predict(batch))[: len(images)]
        return [self._of_maps(self._maps_of(x)) for x in made]

    def run_tiles(
        self, image: np.ndarray, tiles: Tiles, done: Callable[[float], None]
    ) -> Result:
        """Predicts an image [H, W, K] in tiles; `done` is told the finished part."""
        if self.detect is not None:
            return _of_objects(self.detected(image, tiles, done))
        whole: dict[str, np.ndarray] = {}
        first = 0
        for band in self._bands(image, tiles, done):
            for name, rows in band.items():
                if name not in whole:
                    shape = (image.shape[0], *rows.shape[1:])
                    whole[name] = np.empty(shape, rows.dtype)
                whole[name][first : first + len(rows)] = rows
            first += len(band["labels"])
        return self._of_maps(whole)

    def label_bands(
        self, image: windows.Source, tiles: Tiles, done: Callable[[float], None]
    ) -> Iterable[np.ndarray]:
        """Yields the label map of an image from top to bottom, [rows, W]."""
        if self.settings.min_area > 1 or self.settings.objects:
            raise UserError(
                "an image that is read in windows has no regions: needed a smaller "
                "image for --objects and --min-area; leave them out, or cut it."
            )
        return (band["labels"] for band in self._bands(image, tiles, done))

    def detected(
        self, image: windows.Source, tiles: Tiles, done: Callable[[float], None]
    ) -> Objects:
        """Detects in tiles of an image that may be a file; see `run_tiles`."""
        assert self.detect is not None
        found = detection.tiled_objects(
            self.detect,
            image,
            tile=tiles.side,
            overlap=self.settings.overlap,
            batch_size=tiles.batch_size,
            done=done,
        )
        return self._kept(found)

    def _bands(
        self, image: windows.Source, tiles: Tiles, done: Callable[[float], None]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields maps by name, each [rows, W, ...], from top to bottom."""
        assert self.predict is not None
        parts = inference.bands(
            self.predict,
            image,
            tile=tiles.side,
            overlap=self.settings.overlap,
            batch_size=tiles.batch_size,
        )
        for first, made in parts:
            yield self._maps_of(made)
            done((first + len(made)) / image.shape[0])

    def _maps_of(self, made: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the maps of probabilities, and disagreement, [rows, W, C (+ 1)]."""
        settings, multilabel = self.settings, self.multilabel
        num_classes = len(self.models[0].classes)
        probs = made[..., :num_classes]
        labels = regions.label_map(probs, multilabel=multilabel)
        if settings.kept is not None:
            empty = self._empty(labels)
            labels = regions.keep_classes(labels, settings.kept, empty=empty)
        maps = {"labels": labels}
        if settings.probabilities:
            maps["probabilities"] = probs.astype(np.float16)
        if settings.uncertainty:
            entropy = transforms.pixel_entropy(probs, multilabel=multilabel)
            maps["entropy"] = np.asarray(entropy)[..., 0].astype(np.float16)
            if made.shape[-1] > num_classes:
                maps["disagreement"] = made[..., num_classes].astype(np.float16)
        if settings.objects:
            maps["confidence"] = probs.max(axis=-1).astype(np.float16)
            if self.watershed is not None:
                for name in ("interior", "foreground"):
                    chosen = probs[..., self.watershed[name]].sum(axis=-1)
                    maps[name] = chosen.astype(np.float16)
        return maps

    def _of_maps(self, maps: dict[str, np.ndarray]) -> Result:
        labels, empty = maps["labels"], self._empty(maps["labels"])
        if self.settings.min_area > 1:
            labels = regions.without_small_regions(
                labels, self.settings.min_area, empty=empty
            )
        found = self._objects(labels, maps) if self.settings.objects else None
        uncertain = {k: maps[k] for k in ("entropy", "disagreement") if k in maps}
        return Result(
            labels=labels,
            objects=found,
            probabilities=maps.get("probabilities"),
            uncertainty=uncertain or None,
        )

    def _objects(self, labels: np.ndarray, maps: dict[str, np.ndarray]) -> Objects:
        empty, confidence = self._empty(labels), maps["confidence"]
        if self.watershed is None:
            return regions.regions(labels, empty=empty, confidence=confidence)
        ids = inference.instances(
            maps["interior"],
            maps["foreground"],
            inference.Watershed(**self.watershed["settings"]),
        )
        numbers = np.arange(1, int(ids.max()) + 1)
        found = regions.scored(
            ids, numbers, self.watershed["class"], confidence=maps["foreground"]
        )
        return self._kept(found)

    def _kept(self, found: Objects) -> Objects:
        """Selects by --classes and --min-area."""
        kept = np.ones(len(found), bool)
        if self.settings.kept is not None:
            kept &= np.isin(found.classes, self.settings.kept)
        if self.settings.min_area > 1:
            kept &= found.areas >= self.settings.min_area
        return found.take(np.flatnonzero(kept))

    def _empty(self, labels: np.ndarray) -> int:
        return regions.empty_label(labels.dtype, multilabel=self.multilabel)


def _of_objects(found: Objects) -> Result:
    sure = found.take(np.flatnonzero(found.scores >= 0.5))
    return Result(labels=sure.id_map(), objects=found)
