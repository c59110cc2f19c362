"""What `segjax predict` computes for one image."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from segjax import inference
from segjax.cli import predict_run_files as run_files
from segjax.errors import UserError
from segjax.inference import detection, regions, transforms, windows
from segjax.inference.objects import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compute; see the flags of `segjax predict`."""

    tile: int
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Predicts images with one or several models.

    Attributes:
        models: The models, the first of which reads the images.
        predict: Probabilities, and disagreement if wanted; None for detectors.
        detect: Detections; None for other models.
        settings: What to compute.
        plan: Fixes padded sizes; see `Model.plan`.
        watershed: Content of RUN/instances.json; None to find connected components.
    """

    models: Sequence[inference.Model]
    predict: inference.PredictFn | None
    detect: inference.DetectFn | None
    settings: Settings
    plan: Callable[[Sequence[tuple[int, int]]], None]
    watershed: dict[str, Any] | None

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may have many classes, or none."""
        return self.models[0].description["task"] == "multilabel"

    def run(self, image: windows.Source, done: Callable[[float], None]) -> Result:
        """Predicts an image [H, W, K]; `done` is told the finished fraction."""
        if self.detect is not None:
            found = self._detected(image, done)
            sure = found.take(np.flatnonzero(found.scores >= 0.5))
            return Result(labels=sure.id_map(), objects=found)
        maps = self._maps(image, done)
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

    def label_bands(
        self, image: windows.Source, done: Callable[[float], None]
    ) -> Iterable[np.ndarray]:
        """Yields the label map of an image from top to bottom, [rows, W]."""
        if self.settings.min_area > 1 or self.settings.objects:
            raise UserError(
                "an image that is read in windows has no regions: needed a smaller "
                "image for --objects and --min-area; leave them out, or cut it."
            )
        return (band["labels"] for band in self._bands(image, done))

    def detected(self, image: windows.Source, done: Callable[[float], None]) -> Objects:
        """Detects in an image that may be a file; see `run`."""
        return self._detected(image, done)

    def _bands(self, image: windows.Source, done: Callable[[float], None]):
        """Yields maps by name, each [rows, W, ...], from top to bottom."""
        assert self.predict is not None
        settings, height = self.settings, image.shape[0]
        if settings.tile:
            parts = inference.bands(
                self.predict, image, tile=settings.tile, overlap=settings.overlap
            )
        else:
            parts = ((0, np.asarray(x)) for x in self.predict(np.asarray(image)[None]))
        for first, made in parts:
            yield self._maps_of(made)
            done((first + len(made)) / height)

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

    def _maps(
        self, image: windows.Source, done: Callable[[float], None]
    ) -> dict[str, np.ndarray]:
        whole: dict[str, np.ndarray] = {}
        first = 0
        for band in self._bands(image, done):
            for name, rows in band.items():
                if name not in whole:
                    shape = (image.shape[0], *rows.shape[1:])
                    whole[name] = np.empty(shape, rows.dtype)
                whole[name][first : first + len(rows)] = rows
            first += len(band["labels"])
        return whole

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

    def _detected(
        self, image: windows.Source, done: Callable[[float], None]
    ) -> Objects:
        assert self.detect is not None
        settings = self.settings
        if settings.tile:
            found = detection.tiled_objects(
                self.detect,
                image,
                tile=settings.tile,
                overlap=settings.overlap,
                done=done,
            )
        else:
            (found,) = self.detect(np.asarray(image)[None])
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


def make_work(
    models: Sequence[inference.Model],
    settings: Settings,
    *,
    temperatures: Sequence[float] | None,
) -> Work:
    """Composes the functions of the models by the settings."""
    predict = detect = watershed = None
    plans = [model.plan for model in models]
    if models[0].description["task"] == "instance":
        detects = [model.detect for model in models]
        detect = detects[0] if len(models) == 1 else inference.ensemble_objects(detects)
        detect = inference.tta_objects(detect) if settings.tta else detect
    else:
        several = len(models) > 1 and settings.uncertainty
        if len(models) == 1 and temperatures is None:
            predict = models[0].probabilities
        else:
            predict = inference.model_ensemble(
                models, temperatures=temperatures, disagreement=several
            )
            if isinstance(predict, inference.PlannedFn):
                plans = [predict.predictor.plan]
        predict = inference.tta(predict) if settings.tta else predict
        if settings.objects:
            watershed = run_files.watershed_of(models[0])

    def plan(sizes: Sequence[tuple[int, int]]) -> None:
        turned = [(w, h) for h, w in sizes] if settings.tta else []
        for one in plans:
            one([*sizes, *turned])

    return Work(
        models=models,
        predict=predict,
        detect=detect,
        settings=settings,
        plan=plan,
        watershed=watershed,
    )
