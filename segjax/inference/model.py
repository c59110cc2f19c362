"""A trained model, ready to predict: what `segjax.load` returns."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import ops, viz
from segjax.errors import UserError
from segjax.files import limits
from segjax.forward import Forward
from segjax.inference.arrays import ImageOrPath, as_image
from segjax.inference.objects import Objects, from_output
from segjax.inference.prediction import Prediction, confident_objects, instance_map
from segjax.inference.predictor import NoMemoryError, Output, Predictor, labels
from segjax.inference.reading import Page, fit_integers, image_size, read_image
from segjax.typing import Array, PyTree

Build = Callable[[pathlib.Path], Any]
"""Builds the experiment of a run folder by executing its script."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model, ready to predict.

    Attributes:
        folder: The folder that it was loaded from.
        forward: The network with its preprocessing, to run on your own batches.
        variables: Parameters and other collections, in nested dictionaries.
        description: Content of `model.json`: classes, task, dtype and channels of
            images.
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
        """uint8 [C, 3], one color per class; those of the data set if it has any."""
        colors = self.description.get("colors")
        if colors is None:
            return viz.palette(len(self.classes))
        rows = [list(bytes.fromhex(color.removeprefix("#"))) for color in colors]
        return np.array(rows, np.uint8)

    def predict(
        self, image: ImageOrPath, *, max_pixels: int = limits.PREDICT_PIXELS
    ) -> Prediction:
        """Segments an image.

        Args:
            image: [H, W, K] with the channels and the dtype of the training images, or
                what `inference.as_image` can convert to it; or the path of an image,
                see `inference.read_image`.
            max_pixels: Maximum height times width of an image read from a file.

        Raises:
            ValueError: If the image does not fit (`inference.as_image`), or the file
                cannot be read.
        """
        pixels = self._pixels(image, max_pixels)
        return self._prediction(pixels, self._predictor(pixels))

    def predict_all(
        self,
        images: Iterable[ImageOrPath],
        *,
        batch_size: int | None = None,
        max_pixels: int = limits.PREDICT_PIXELS,
    ) -> Iterator[Prediction]:
        """Segments many images and yields their predictions in order.

        Args:
            images: See `predict`. For a list or tuple, padded sizes are chosen jointly,
                which adds fewer pixels than single calls do, and images of equal padded
                size are batched. Other iterables, such as generators, are predicted one
                by one.
            batch_size: Images per call of the network. Default: 1 on a CPU, where
                larger batches are not faster, and 8 elsewhere.
            max_pixels: See `predict`.

        Raises:
            ValueError: See `predict`; raised at the first invalid image.
        """
        if not isinstance(images, Sequence):
            yield from (self.predict(x, max_pixels=max_pixels) for x in images)
            return
        made = self.predict_each(images, batch_size=batch_size, max_pixels=max_pixels)
        for prediction in made:
            if isinstance(prediction, ValueError):
                raise prediction
            yield prediction

    def predict_each(
        self,
        images: Sequence[ImageOrPath],
        *,
        batch_size: int | None = None,
        max_pixels: int = limits.PREDICT_PIXELS,
    ) -> Iterator[Prediction | ValueError]:
        """Like `predict_all`, but yields the errors of invalid images.

        Args:
            images: A list or tuple; see `predict`.
            batch_size: See `predict_all`.
            max_pixels: See `predict`.

        Yields:
            For each image, its prediction or its error.
        """
        if batch_size is None:
            batch_size = 1 if jax.default_backend() == "cpu" else 8
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}.")
        read = _or_error(lambda image: self._pixels(image, max_pixels))
        sizes = list(map(_or_error(lambda x: self._size(x, max_pixels)), images))
        fitting = [i for i, x in enumerate(sizes) if not isinstance(x, ValueError)]
        made = self._predictor.many(
            [images[i] for i in fitting],
            [sizes[i] for i in fitting],
            read,
            batch_size=batch_size,
        )
        for image, size in zip(images, sizes, strict=True):
            found = size if isinstance(size, ValueError) else next(made)
            if isinstance(found, NoMemoryError):
                named = isinstance(image, str | os.PathLike)
                where = image if named else "the array"
                yield ValueError(f"{where} cannot be predicted: {found}")
            elif isinstance(found, ValueError):
                yield found
            else:
                yield self._prediction(*found)

    def probabilities(self, images: Array) -> np.ndarray:
        """The prediction function of this model, for `inference.sliding_window` etc.

        Args:
            images: [B, H, W, K] of any size, with the channels and the dtype of the
                training images.

        Returns:
            float32 [B, H, W, C].

        Raises:
            ValueError: If the images do not fit, or the model detects objects.
        """
        if self.description["task"] == "instance":
            raise UserError(f"{self.folder} predicts objects: use its `detect`.")
        return np.stack([np.asarray(x) for x in self._batch(images)])

    def detect(self, images: Array) -> list[Objects]:
        """The detection function of this model, for `inference.tta_objects` etc.

        Args:
            images: See `probabilities`.

        Returns:
            The objects of each image, best first.

        Raises:
            ValueError: If the images do not fit, or the model does not detect objects.
        """
        if self.description["task"] != "instance":
            raise UserError(
                f"{self.folder} predicts probabilities: use its `probabilities`."
            )
        return [from_output(x) for x in self._batch(images) if isinstance(x, dict)]

    def read(
        self,
        path: str | os.PathLike,
        *,
        page: Page = None,
        max_pixels: int = limits.PREDICT_PIXELS,
    ) -> tuple[np.ndarray, str]:
        """Reads an image file for this model.

        Args:
            path: See `inference.read_image`.
            page: Of a file with several images; see `inference.pages_of`.
            max_pixels: Maximum height times width.

        Returns:
            (image [H, W, K], a note). If the model's preprocessing scales integers by
            their range, images of 8 and 16 bits are converted to the model's dtype,
            and the note says so; else it is "".

        Raises:
            ValueError: If the file cannot be read, or does not fit the model.
        """
        channels, dtype = (self.description["image"][k] for k in ("channels", "dtype"))
        path, note = pathlib.Path(path), ""
        pixels = read_image(path, channels=channels, max_pixels=max_pixels, page=page)
        if isinstance(self.forward.preprocess, ops.UnitRange | ops.Normalize):
            pixels, note = fit_integers(
                pixels, channels=channels, dtype=dtype, where=str(path)
            )
        return self._pixels(pixels, max_pixels, where=str(path)), note

    def plan(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Fixes the padded sizes of images of these (height, width).

        Their predictions then do not depend on which other images are predicted, nor on
        their order.
        """
        self._predictor.plan(sizes)

    def temporary_bytes(self, side: int) -> int:
        """Returns the memory of the network's temporary arrays for a square image.

        Args:
            side: Of the image, in pixels.

        Returns:
            Bytes; see `Predictor.temporary_bytes`.
        """
        side = ops.round_up(side, self.description["multiple"])
        about = self.description["image"]
        shape = (1, side, side, about["channels"])
        return self._predictor.temporary_bytes(shape, about["dtype"])

    def _batch(self, images: Array) -> Sequence[Output]:
        pixels = np.asarray(images)
        if pixels.ndim != 4 or not len(pixels):
            raise UserError(
                f"{self.folder} needs images [B, H, W, K], got {list(pixels.shape)}. "
                f"Pass one image as image[None]."
            )
        fitted = [self._pixels(image, limits.MAX_PIXELS) for image in pixels]
        return self._predictor.batch(np.stack(fitted))

    def experiment(self) -> Any:
        """Builds the run's `train.Experiment` with its saved flags.

        This executes the folder's `experiment.py` and its imports.

        Raises:
            ValueError: If the folder has no such script.
        """
        return self._build(self.folder)

    def _size(self, image: ImageOrPath, max_pixels: int) -> tuple[int, int]:
        if isinstance(image, str | os.PathLike):
            channels = self.description["image"]["channels"]
            path = pathlib.Path(image)
            return image_size(path, channels=channels, max_pixels=max_pixels)
        height, width = self._pixels(image, max_pixels).shape[:2]
        return height, width

    def _pixels(
        self, image: ImageOrPath, max_pixels: int, where: str = "the array"
    ) -> np.ndarray:
        """Reads [H, W, K]; ValueError if it does not fit the model."""
        return as_image(
            image,
            self.description["image"],
            owner=str(self.folder),
            max_pixels=max_pixels,
            where=where,
        )

    def _prediction(self, image: np.ndarray, output: Output) -> Prediction:
        about = {"image": image, "classes": self.classes, "palette": self.palette}
        if isinstance(output, dict):
            return Prediction(
                **about, labels=instance_map(confident_objects(output)), objects=output
            )
        ids, multilabel = labels(output), self.description["task"] == "multilabel"
        if multilabel:
            ids = np.where(output.max(-1) >= 0.5, ids, ops.ignore_index(ids.dtype))
        return Prediction(
            **about,
            labels=ids,
            probabilities=output,
            multilabel=multilabel,
        )


def _or_error(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wraps `read` to return the error of an image instead of raising it."""

    def attempt(image: Any) -> Any:
        try:
            return read(image)
        except ValueError as error:
            return error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return UserError(f"{image} cannot be read: {reason}.")

    return attempt
