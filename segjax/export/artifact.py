"""Running an exported file, with the checks and results of `Model.predict`."""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import numpy as np

from segjax import inference, optional
from segjax.compiler import compiler_options
from segjax.errors import UserError
from segjax.export.stablehlo import FORMAT, METADATA, PROGRAM
from segjax.files import limits

_MAX_BYTES = 2**31
"""Of the program: the limit of its format."""
_EXACT = 8
"""Multiples up to which a padded side is only rounded up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file written by `segjax.export.save`, ready to predict.

    Attributes:
        path: The file.
        description: Its `metadata.json`.
        classes: Class names.
        palette: uint8 [C, 3], one color per class.
        call: The compiled program, `(image, size) -> {name: array}`; see `description`
            for shapes and meanings. Each new shape is compiled.
    """

    path: pathlib.Path
    description: Mapping[str, Any]
    classes: tuple[str, ...]
    palette: np.ndarray
    call: Callable[[Any, Any], dict[str, jax.Array]]

    def predict(
        self,
        image: np.ndarray | str | os.PathLike,
        *,
        max_pixels: int = limits.PREDICT_PIXELS,
    ) -> inference.Prediction:
        """Segments an image, as `inference.Model.predict` does.

        Sides are padded to at most a quarter more than `multiple` needs, so that images
        of all sizes compile few programs.

        Args:
            image: [H, W, K] with the channels and the dtype of the training images, or
                what `inference.as_image` can convert to it; or the path of an image.
            max_pixels: Maximum height times width of an image read from a file.

        Raises:
            ValueError: If the image has other channels, another dtype, another size
                than the file was exported for, or holds NaN or infinity, or the file
                cannot be read.
        """
        pixels = inference.as_image(
            image,
            self.description["image"],
            owner=str(self.path),
            max_pixels=max_pixels,
        )
        batch, size = self._padded(pixels)
        outputs = jax.device_get(self.call(batch, size))
        height, width = pixels.shape[:2]
        found = {name: x[0] for name, x in outputs.items()}
        about = {"image": pixels, "classes": self.classes, "palette": self.palette}
        labels = found["labels"][:height, :width]
        if "object_mask" in found:
            kept = found["object_mask"]
            names = ("boxes", "scores", "classes", "masks")
            objects = {name: found[name][kept] for name in names}
            objects["masks"] = objects["masks"][:, :height, :width]
            return inference.Prediction(**about, labels=labels, objects=objects)
        return inference.Prediction(
            **about,
            labels=labels,
            probabilities=found["probabilities"][:height, :width],
            multilabel=self.description["task"] == "multilabel",
        )

    def _padded(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the arguments of the program for one image."""
        batch, *fixed, _ = self.description["inputs"]["image"]["shape"]
        sides = [
            n if isinstance(n, int) else _rounded(side, self.description["multiple"])
            for n, side in zip(fixed, image.shape[:2], strict=True)
        ]
        rest = [have - need for have, need in zip(sides, image.shape[:2], strict=True)]
        if min(rest) < 0:
            raise UserError(
                f"{self.path} was exported for images of at most {sides[1]}x{sides[0]} "
                f"pixels, got {image.shape[1]}x{image.shape[0]}. Cut it, or export the "
                f"model for all sizes."
            )
        padded = np.pad(image, ((0, rest[0]), (0, rest[1]), (0, 0)))
        rows = batch if isinstance(batch, int) else 1
        size = np.array([image.shape[:2]] * rows, np.int32)
        return np.repeat(padded[None], rows, axis=0), size


def load(path: str | os.PathLike) -> Artifact:
    """Loads a file written by `segjax.export.save`.

    The file is a program for JAX: load only files that you trust. Nothing is unpickled.

    Args:
        path: The file.

    Raises:
        optional.MissingPackageError: If flatbuffers is not installed.
        ValueError: If the file is damaged, or written by a newer segjax.
        OSError: If it cannot be read.
    """
    optional.require("flatbuffers", extra="export", purpose="an exported model")
    path = pathlib.Path(path)
    try:
        metadata, program = _read(path)
        _check_version(path, metadata)
        exported = jax.export.deserialize(bytearray(program))
        classes = tuple(map(str, metadata["classes"]))
        palette = np.array(metadata["palette"], np.uint8).reshape(len(classes), 3)
        _check_image(metadata, exported)
    except (UserError, OSError):
        raise
    except Exception as error:  # Of zipfile, JSON, flatbuffers and JAX.
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise UserError(
            f"{path} is not an exported model, or is damaged "
            f"({reason or type(error).__name__}). Export it again."
        ) from error
    return Artifact(
        path=path,
        description=metadata,
        classes=classes,
        palette=palette,
        call=jax.jit(exported.call, compiler_options=compiler_options()),
    )


def is_artifact(path: str | os.PathLike) -> bool:
    """Whether a file looks like one written by `segjax.export.save`."""
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist()) == {METADATA, PROGRAM}
    except (OSError, zipfile.BadZipFile):
        return False


def _read(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    contents = []
    with zipfile.ZipFile(path) as file:
        # Not compressed, so no entry is larger than the file.
        for name, most in ((METADATA, limits.TEXT_BYTES), (PROGRAM, _MAX_BYTES)):
            entry = file.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
                raise ValueError(f"{name} is compressed or too large")
            contents.append(file.read(entry))
    return json.loads(contents[0]), contents[1]


def _check_version(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    if metadata["format"] > FORMAT:
        raise UserError(
            f"{path} has format {metadata['format']}, this version of segjax reads up "
            f"to {FORMAT}. Update segjax to "
            f"{metadata.get('segjax', 'a newer version')}."
        )


def _check_image(metadata: Mapping[str, Any], exported: jax.export.Exported) -> None:
    """Raises a ValueError if the metadata are not those of the program."""
    image, (aval, _) = metadata["image"], exported.in_avals
    found = image["channels"], image["dtype"], metadata["inputs"]["image"]["shape"]
    shape = [n if isinstance(n, int) else str(n) for n in aval.shape]
    if found != (aval.shape[-1], str(aval.dtype), shape) or metadata["multiple"] < 1:
        raise ValueError("its metadata describe another program")


def _rounded(side: int, multiple: int) -> int:
    """Rounds up to a multiple; above `_EXACT` of them by at most a quarter."""
    count = -(-side // multiple)
    if count > _EXACT:
        step = 1 << ((count - 1).bit_length() - 3)
        count = -(-count // step) * step
    return count * multiple
