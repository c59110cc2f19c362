"""A trained model from its folder: `segjax.load`."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import model_file, ops, viz
from segjax.forward import Forward
from segjax.inference.prediction import Prediction, confident, numbered
from segjax.inference.predictor import Output, Predictor, labels
from segjax.inference.reading import image_size, read_image
from segjax.typing import PyTree

ImageOrPath = np.ndarray | str | os.PathLike
Build = Callable[[pathlib.Path], Any]
"""`run folder -> experiment`, by executing the folder's script."""

SCRIPT = "experiment.py"


class NeedsCodeError(ValueError):
    """A model is partly its user's own code, which was not to be executed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model, ready to predict.

    Attributes:
        folder: Of which it was loaded.
        forward: The network with its preprocessing, to run on batches of one's own.
        variables: Parameters and other collections, in nested dictionaries.
        description: What `model.json` says: classes, task, the images that it takes.
    """

    folder: pathlib.Path
    forward: Forward
    variables: PyTree
    description: Mapping[str, Any]
    _predictor: Predictor
    _build: Build

    @property
    def module(self) -> Any:
        """The linen module."""
        return self.forward.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is a position in this tuple."""
        return tuple(self.description["classes"])

    @functools.cached_property
    def palette(self) -> np.ndarray:
        """uint8 [C, 3], a color a class: those of the data, where it has some."""
        colors = self.description.get("colors")
        if colors is None:
            return viz.palette(len(self.classes))
        rows = [list(bytes.fromhex(color.removeprefix("#"))) for color in colors]
        return np.array(rows, np.uint8)

    def predict(self, image: ImageOrPath) -> Prediction:
        """Segments an image.

        Args:
            image: [H, W, K] with the channels and the dtype that the model was trained
                on ([H, W] where it has one channel), or a file with such an image; see
                `inference.read_image`.

        Raises:
            ValueError: If the image has other channels or another dtype, or the file
                cannot be read.
        """
        pixels = self._pixels(image)
        return self._prediction(pixels, self._predictor(pixels))

    def predict_all(
        self, images: Iterable[ImageOrPath], *, batch_size: int | None = None
    ) -> Iterator[Prediction]:
        """Segments many images, and gives each one's prediction in their order.

        Args:
            images: As `predict` takes them. Of a list or tuple the padded sizes are
                planned for all, which adds fewer pixels than single calls do, and
                images of one padded size go through the network together. Others, such
                as generators, are predicted one by one.
            batch_size: Images to a call of the network; 1 on a CPU, where more are no
                faster, and 8 elsewhere, unless given.

        Raises:
            ValueError: As `predict`.
        """
        if not isinstance(images, Sequence):
            yield from map(self.predict, images)
            return
        if batch_size is None:
            batch_size = 1 if jax.default_backend() == "cpu" else 8
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        made = self._predictor.many(
            images,
            [self._size(image) for image in images],
            self._pixels,
            batch_size=batch_size,
        )
        for pixels, output in made:
            yield self._prediction(pixels, output)

    def experiment(self) -> Any:
        """The `train.Experiment` of the run, built again with the flags that it kept.

        This executes the folder's `experiment.py`, and what that imports.

        Raises:
            ValueError: If the folder has no such script.
        """
        return self._build(self.folder)

    def _size(self, image: ImageOrPath) -> tuple[int, int]:
        if isinstance(image, str | os.PathLike):
            channels = self.description["image"]["channels"]
            return image_size(pathlib.Path(image), channels=channels)
        height, width = self._pixels(image).shape[:2]
        return height, width

    def _pixels(self, image: ImageOrPath) -> np.ndarray:
        """[H, W, K] of the model's channels and dtype. Raises ValueError otherwise."""
        channels, dtype = (self.description["image"][k] for k in ("channels", "dtype"))
        where = "the array"
        if isinstance(image, str | os.PathLike):
            where = str(image)
            pixels = read_image(pathlib.Path(image), channels=channels)
        else:
            pixels = np.asarray(image)
        if pixels.ndim == 2 and channels == 1:
            pixels = pixels[..., None]
        fits = pixels.ndim == 3 and pixels.shape[-1] == channels and pixels.size > 0
        if not fits or pixels.dtype != dtype:
            raise ValueError(
                f"{self.folder} needs images [H, W, {channels}] of dtype {dtype}, as "
                f"in training, got {list(pixels.shape)} of dtype {pixels.dtype} from "
                f"{where}. Convert it as the training images were."
            )
        return pixels

    def _prediction(self, image: np.ndarray, output: Output) -> Prediction:
        about = {"image": image, "classes": self.classes, "palette": self.palette}
        if isinstance(output, dict):
            return Prediction(
                **about, labels=numbered(confident(output)), objects=output
            )
        ids, overlapping = labels(output), self.description["task"] == "multilabel"
        if overlapping:
            ids = np.where(output.max(-1) >= 0.5, ids, ops.ignore_index(ids.dtype))
        return Prediction(
            **about,
            labels=ids,
            probabilities=output,
            overlapping=overlapping,
        )


def load(folder: str | os.PathLike, *, trust: bool = False, build: Build) -> Model:
    """Loads a trained model; see `segjax.load`, which gives `build`.

    Args:
        folder: A run folder, or another that `model_file.write` wrote.
        trust: See `segjax.load`.
        build: What builds the folder's experiment. It is called by `Model.experiment`,
            and here if the model needs code and `trust` is True.
    """
    folder = pathlib.Path(folder)
    description, variables = model_file.read(folder)
    forward = _forward(folder, description, trust=trust, build=build)
    multilabel = description["task"] == "multilabel"
    predictor = Predictor(
        forward,
        variables,
        multiple=description["multiple"],
        max_shapes=description["max_shapes"],
        activation=jax.nn.sigmoid if multilabel else jax.nn.softmax,
    )
    return Model(
        folder=folder,
        forward=forward,
        variables=variables,
        description=description,
        _predictor=predictor,
        _build=build,
    )


def _forward(
    folder: pathlib.Path, description: Mapping[str, Any], *, trust: bool, build: Build
) -> Forward:
    why = description["needs_code"]
    if why is not None and not trust:
        script = folder / SCRIPT
        raise NeedsCodeError(
            f"{folder} holds a model with code of its own: {why}. To load it would "
            f"execute {script}. If you trust that script, give --trust, or trust=True "
            f"to segjax.load."
        )
    if why is not None:
        return build(folder).forward
    try:
        return model_file.forward_of(description)
    except ValueError as error:
        raise ValueError(f"{folder / model_file.NAME}: {error}") from error
