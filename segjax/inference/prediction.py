"""The prediction of one image, on the host: label map, overlay, files."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from segjax import ops, viz
from segjax.errors import UserError
from segjax.files import writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's prediction of one image.

    Attributes:
        image: [H, W, K] as stored.
        classes: C names.
        palette: uint8 [C, 3], one color per class.
        labels: [H, W] uint8; uint16 for more than 255 classes, and for objects. For
            exclusive classes, the id of the most probable class. For the task
            multilabel, the same where a class has a probability of at least 0.5, and
            the dtype's ignore index elsewhere. For objects, the number of the topmost
            one, from 1 in the order of `confident_objects(objects)`; 0 for none.
        probabilities: float32 [H, W, C]; None for detection models.
        objects: For detection models, the result of `models.instances`, best first:
            `boxes` [n, 4], `scores` [n], `classes` [n], `masks` [n, H, W]; else None.
        multilabel: Whether a pixel may have many classes, or none (the task
            multilabel), so that class 0 is not a background.
    """

    image: np.ndarray
    classes: tuple[str, ...]
    palette: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    objects: Mapping[str, np.ndarray] | None = None
    multilabel: bool = False

    def overlay(self) -> np.ndarray:
        """Draws the classes or objects on the image, uint8 RGB.

        Class 0, the background, and pixels without a class are not tinted. Objects are
        drawn if their score is at least 0.5; small images are enlarged for them.
        """
        if self.objects is not None:
            drawn = confident_objects(self.objects)
            return viz.instances(self.image, drawn, classes=self.classes)
        palette, shown = self.palette, self.labels.astype(np.int32)
        valid = self.labels != ops.ignore_index(self.labels.dtype)
        if self.multilabel:  # `viz.overlay` does not tint class 0.
            palette, shown = np.concatenate([palette[:1], palette]), shown + 1
        return viz.overlay(self.image, shown, palette, valid=valid)

    def save(self, path: str | os.PathLike) -> None:
        """Saves `labels` as a PNG, and objects also as a JSON file.

        Pixels have the values of `labels`, in 8 or 16 bits without a palette, which
        other libraries would read as colors. NAME.json lists all objects, including
        those with low scores.

        Args:
            path: NAME.png. Each file is written atomically.

        Raises:
            ValueError: If the path has another suffix.
            OSError: If a file cannot be written; no incomplete file is left.
        """
        path = pathlib.Path(path)
        if path.suffix != ".png":
            raise UserError(
                f"A prediction is saved as a .png file, got {path}. Change the suffix."
            )
        picture = Image.fromarray(self.labels)
        if self.objects is not None:
            text = json.dumps({"objects": self._rows(self.objects)}, indent=2)
            writing.write_bytes(path.with_suffix(".json"), f"{text}\n".encode())
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
    """Selects the objects with a score of at least 0.5."""
    kept = objects["scores"] >= 0.5
    return {name: x[kept] for name, x in objects.items()}


def instance_map(objects: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws objects into one map, uint16 [H, W]: numbers from 1, the first on top."""
    masks = objects["masks"] >= 0.5
    numbers = np.zeros(masks.shape[1:], np.uint16)
    for number in range(len(masks), 0, -1):
        numbers[masks[number - 1]] = number
    return numbers
