"""What a model says of one image, on the host, ready to look at and to keep."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from segjax import ops, viz
from segjax.files import writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's answer for one image.

    Attributes:
        image: [H, W, K] as stored.
        classes: C names.
        palette: uint8 [C, 3], a color a class.
        labels: [H, W] uint8, or uint16 where there are more than 255 classes, and of
            objects. Of classes that exclude each other the most probable class's id. Of
            overlapping classes the same where a class has a probability of at least
            0.5, and the dtype's greatest number elsewhere. Of objects the number of the
            one on top, from 1 in the order of `confident_objects(objects)`; 0 for none.
        probabilities: float32 [H, W, C]; None of a model that detects objects.
        objects: Of a model that detects, as `models.instances` gives them, best first:
            `boxes` [n, 4], `scores` [n], `classes` [n], `masks` [n, H, W]; else None.
        multilabel: A pixel may be of many classes, or of none (the task multilabel),
            so class 0 is not a background.
    """

    image: np.ndarray
    classes: tuple[str, ...]
    palette: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    objects: Mapping[str, np.ndarray] | None = None
    multilabel: bool = False

    def overlay(self) -> np.ndarray:
        """The image with its classes, or its objects, drawn over it: uint8 RGB.

        Class 0, the background, stays as it is, and so do pixels without a class.
        Objects are those of a score of at least 0.5, on an enlarged image if it is
        small.
        """
        if self.objects is not None:
            sure = confident_objects(self.objects)
            return viz.instances(self.image, sure, classes=self.classes)
        palette, shown = self.palette, self.labels.astype(np.int32)
        valid = self.labels != ops.ignore_index(self.labels.dtype)
        if self.multilabel:  # `viz.overlay` leaves class 0 as it is.
            palette, shown = np.concatenate([palette[:1], palette]), shown + 1
        return viz.overlay(self.image, shown, palette, valid=valid)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `labels` as a PNG, and of objects a JSON file beside it.

        The pixels are the numbers of `labels`; viewers show class ids in the classes'
        colors. NAME.json lists all objects, those of low scores too.

        Args:
            path: NAME.png. Each file appears under its name when it is complete; until
                then the one that was there stays.

        Raises:
            ValueError: If the path has another suffix.
            OSError: If a file cannot be written; nothing half-written is left.
        """
        path = pathlib.Path(path)
        if path.suffix != ".png":
            raise ValueError(f"A prediction is saved as a .png file, got {path}.")
        picture = Image.fromarray(self.labels)
        if self.objects is not None:
            text = json.dumps({"objects": self._rows(self.objects)}, indent=2)
            writing.write_bytes(path.with_suffix(".json"), f"{text}\n".encode())
        elif self.labels.dtype == np.uint8:
            table = np.zeros((256, 3), np.uint8)
            table[: len(self.palette)] = self.palette
            table[-1] = 255
            picture.putpalette(table.tobytes())
        with writing.atomic(path) as temporary:
            picture.save(temporary, "PNG")

    def _rows(self, objects: Mapping[str, np.ndarray]) -> list[dict]:
        columns = (objects[name].tolist() for name in ("classes", "scores", "boxes"))
        return [
            {
                "class": self.classes[k],
                "score": round(score, 4),
                "box": [round(edge, 2) for edge in box],
            }
            for k, score, box in zip(*columns, strict=True)
        ]


def confident_objects(objects: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The objects of a score of at least 0.5: those worth a look."""
    kept = objects["scores"] >= 0.5
    return {name: x[kept] for name, x in objects.items()}


def instance_map(objects: Mapping[str, np.ndarray]) -> np.ndarray:
    """Objects as one map, uint16 [H, W]: numbers from 1, the first on top."""
    masks = objects["masks"] >= 0.5
    numbers = np.zeros(masks.shape[1:], np.uint16)
    for number in range(len(masks), 0, -1):
        numbers[masks[number - 1]] = number
    return numbers
