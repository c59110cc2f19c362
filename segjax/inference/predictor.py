"""Running a network on images of any size with few compiled programs."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from segjax import models, ops
from segjax.compiler import compiler_options
from segjax.cpu_inference import faster_on_cpu
from segjax.errors import UserError
from segjax.forward import Forward
from segjax.typing import Array, PyTree

Size = tuple[int, int]
Output = np.ndarray | dict[str, np.ndarray]
"""Probabilities float32 [H, W, C], or objects from `models.instances`."""


def make_predictor(
    forward: Forward,
    variables: PyTree,
    *,
    multiple: int = 32,
    max_shapes: int = 8,
    activation: Callable[[Array], Array] = jax.nn.softmax,
) -> "Predictor":
    """Makes a `Predictor`, which compiles a network for a few padded sizes only.

    Args:
        forward: The network with its preprocessing.
        variables: Parameters and other collections.
        multiple: Padded sides are multiples of this, in pixels.
        max_shapes: Number of padded sizes to compile.
        activation: Logits to probabilities; `jax.nn.sigmoid` for multilabel models.
    """
    return Predictor(
        forward,
        variables,
        multiple=multiple,
        max_shapes=max_shapes,
        activation=activation,
    )


class NoMemoryError(UserError):
    """Images are too large for the memory."""


class Predictor:
    """Runs a network on single images of any size: `predictor(image)`.

    Images are padded by reflection: at the bottom and the right to a padded size, and
    on all sides by the margin of a model that crops its border, such as a U-Net with
    valid padding (the overlap-tile strategy of its paper), so that every pixel gets a
    label. Detection models also get the true size.

    There is one compiled program per padded size. The sizes of the images of `many` are
    known in advance, and they share `max_shapes` padded sizes chosen to add few pixels
    (`ops.bucket_sizes`). For single calls, the first `max_shapes // 2` different sizes
    are only rounded up to the multiple. After that, an image is padded to the smallest
    compiled size that holds it. If there is none, a new size is added that holds all
    images so far, with sides that are the multiple times powers of two; if only a
    quarter of `max_shapes` is left, it is a square. So beyond `max_shapes`, there is
    one more program for each doubling of the longest side.

    Padding changes the outputs of most networks near the bottom and right border, and
    those of networks with group norm slightly everywhere, since its statistics are over
    the padded image. Mask R-CNN's outputs do not depend on padding.
    """

    def __init__(
        self,
        forward: Forward,
        variables: PyTree,
        *,
        multiple: int = 32,
        max_shapes: int = 8,
        activation: Callable[[Array], Array] = jax.nn.softmax,
    ):
        if multiple < 1 or max_shapes < 1:
            raise UserError(
                f"A predictor needs multiple and max_shapes of at least 1, got "
                f"{multiple} and {max_shapes}."
            )
        self._margin = forward.margin
        forward = faster_on_cpu(forward)
        self._multiple, self._max_shapes = multiple, max_shapes
        self._variables = jax.device_put(variables)
        self._sizes: list[Size] = []  # The compiled sizes, in order.
        self._largest = (0, 0)
        self._fixed: dict[Size, Size] = {}  # By the size of the image; see `plan`.

        @functools.partial(jax.jit, compiler_options=compiler_options())
        def program(variables: PyTree, image: Array, size: Array) -> Any:
            outputs, _ = forward(variables, {"image": image, "size": size})
            if isinstance(outputs, models.Detections):
                return outputs
            if not isinstance(outputs, jax.Array):
                raise UserError(
                    f"Prediction needs a model that returns logits [B, H, W, C] or "
                    f"models.Detections, got {type(outputs).__name__}."
                )
            return activation(outputs)

        self._program = program

    def __call__(self, image: np.ndarray) -> Output:
        """Predicts one image.

        Args:
            image: [H, W, K] as stored, at least one pixel.

        Returns:
            Probabilities float32 [H, W, C]; for detection models, the image's objects
            from `models.instances`.
        """
        return self._run([image], self._size_for(image.shape[:2]), rows=1)[0]

    def batch(self, images: np.ndarray) -> Sequence[Output]:
        """Predicts images of one size, [B, H, W, K] as stored, in one call."""
        return self._run(
            list(images), self._size_for(images.shape[1:3]), rows=len(images)
        )

    def temporary_bytes(self, shape: tuple[int, int, int, int], dtype: str) -> int:
        """Returns the memory of the network's temporary arrays for one batch.

        The program is compiled, which later calls of the same shape use, but not run.

        Args:
            shape: [B, H, W, K] of the images, with sides that are multiples.
            dtype: Of the images.

        Returns:
            Bytes by the compiler's plan; 0 if the backend does not tell.
        """
        rows, *sides, channels = shape
        padded = (rows, *(n + 2 * self._margin for n in sides), channels)
        image = jax.ShapeDtypeStruct(padded, dtype)
        size = jax.ShapeDtypeStruct((rows, 2), np.int32)
        program = self._program.lower(self._variables, image, size).compile()
        found = program.memory_analysis()
        return 0 if found is None else int(found.temp_size_in_bytes)

    def plan(self, sizes: Sequence[Size]) -> None:
        """Fixes the padded sizes of images of these sizes, for `batch` and calls.

        Results then do not depend on which of the images are predicted, nor on their
        order.
        """
        distinct = sorted(set(sizes))
        self._fixed = dict(zip(distinct, self._plan(distinct), strict=True))

    def many(
        self,
        images: Sequence[Any],
        sizes: Sequence[Size],
        read: Callable[[Any], np.ndarray | ValueError],
        *,
        batch_size: int,
    ) -> Iterator[tuple[np.ndarray, Output] | ValueError]:
        """Predicts images of known sizes in batches, and yields the results in order.

        Args:
            images: Arguments of `read`.
            sizes: (height, width) of each.
            read: Called for each image shortly before it is predicted. It may return a
                ValueError for an unreadable image.
            batch_size: Images of one padded size per call of the network. Incomplete
                batches are padded with copies of their first image.

        Yields:
            (image, output) for each, or the error that `read` returned, or that says
            that memory is not enough.
        """
        plan = self._plan(sizes)
        window = 1 if batch_size == 1 else 8 * batch_size  # Images in memory.
        for start in range(0, len(images), window):
            chosen = range(start, min(start + window, len(images)))
            pixels = {i: read(images[i]) for i in chosen}
            made: dict[int, Output | NoMemoryError] = {}
            readable = [i for i, x in pixels.items() if isinstance(x, np.ndarray)]
            for size in dict.fromkeys(plan[i] for i in readable):
                own = [i for i in readable if plan[i] == size]
                for first in range(0, len(own), batch_size):
                    part = own[first : first + batch_size]
                    rows: list[Any] = [pixels[i] for i in part]
                    made |= zip(part, self._each(rows, size, batch_size), strict=True)
            for i in chosen:
                image = pixels.pop(i)
                if isinstance(image, ValueError):
                    yield image
                    continue
                found = made.pop(i)
                yield found if isinstance(found, NoMemoryError) else (image, found)

    def _each(
        self, images: Sequence[np.ndarray], size: Size, rows: int
    ) -> Sequence[Output | NoMemoryError]:
        """Like `_run`, with the error for each image that memory is not enough for."""
        try:
            return self._run(images, size, rows=rows)
        except NoMemoryError as error:
            return [error] * len(images)

    def _plan(self, sizes: Sequence[Size]) -> list[Size]:
        """Chooses a padded size for each image, within the remaining `max_shapes`."""
        planned = ops.bucket_sizes(
            sizes, multiple=self._multiple, limit=self._max_shapes
        )
        free = self._max_shapes - len(self._sizes)
        if len(set(planned) - set(self._sizes)) > free:
            if free < 1:
                return [self._size_for(size) for size in sizes]
            planned = ops.bucket_sizes(sizes, multiple=self._multiple, limit=free)
        self._sizes += sorted(set(planned) - set(self._sizes))
        for size in planned:
            self._largest = _union(self._largest, size)
        return planned

    def _size_for(self, size: Sequence[int]) -> Size:
        """Chooses the padded size of a single image; see the class."""
        if (size[0], size[1]) in self._fixed:
            return self._fixed[size[0], size[1]]
        exact = _rounded(size, self._multiple)
        self._largest = _union(self._largest, exact)
        if exact in self._sizes:
            return exact
        if len(self._sizes) >= self._max_shapes // 2:
            holding = [s for s in self._sizes if _union(s, exact) == s]
            if holding:
                return min(holding, key=lambda s: s[0] * s[1])
            exact = self._grown()
        self._sizes.append(exact)
        return exact

    def _grown(self) -> Size:
        """Returns a size that holds all images so far, by powers of two."""
        height, width = (
            self._multiple * _power_of_two(n // self._multiple) for n in self._largest
        )
        if self._max_shapes - len(self._sizes) <= self._max_shapes // 4:
            height = width = max(height, width)
        return height, width

    def _run(self, images: Sequence[np.ndarray], size: Size, *, rows: int):
        """Computes the outputs of up to `rows` images that fit into `size`."""
        padded = [*images, *[images[0]] * (rows - len(images))]
        batch = np.stack([reflect(x, self._margin, size) for x in padded])
        sizes = np.array([x.shape[:2] for x in padded], np.int32)
        try:
            outputs = self._program(self._variables, batch, sizes)
            jax.block_until_ready(outputs)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
            raise NoMemoryError(
                f"images padded to {size[1]}x{size[0]} pixels need more memory than is "
                f"available: cut them into tiles, or use a smaller batch size."
            ) from error
        if isinstance(outputs, models.Detections):
            found = jax.tree.map(lambda x: x[: len(images)], jax.device_get(outputs))
            return models.instances(found)
        whole = np.asarray(outputs)
        # Copies, so that a prediction does not hold the memory of its batch.
        return [
            whole[i, : x.shape[0], : x.shape[1]].copy() for i, x in enumerate(images)
        ]


def labels(probs: np.ndarray) -> np.ndarray:
    """Returns the most probable class ids [H, W] of [H, W, C]; the first among ties.

    Returns:
        uint8, or uint16 for more than 255 classes.
    """
    dtype = np.uint8 if probs.shape[-1] <= 255 else np.uint16
    return np.argmax(probs, axis=-1).astype(dtype)


def _rounded(size: Sequence[int], multiple: int) -> Size:
    return ops.round_up(size[0], multiple), ops.round_up(size[1], multiple)


def _union(a: Size, b: Size) -> Size:
    return max(a[0], b[0]), max(a[1], b[1])


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def reflect(image: np.ndarray, margin: int, size: Size) -> np.ndarray:
    """Pads [H, W, K] to [size + 2 * margin], the image `margin` from the top left."""
    pads = [(margin, margin + size[i] - image.shape[i]) for i in (0, 1)]
    # `reflect` needs at least two pixels; a single one is repeated.
    rows = np.pad(image, (pads[0], (0, 0), (0, 0)), _mode(image.shape[0]))
    return np.pad(rows, ((0, 0), pads[1], (0, 0)), _mode(image.shape[1]))


def _mode(pixels: int):
    return "reflect" if pixels > 1 else "edge"
