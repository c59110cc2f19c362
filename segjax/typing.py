"""Shared array and function types.

Letters: B batch, H W pixels, C classes, N instances (padded), A anchors, S seeds.

A batch is a mapping from names to arrays. Some arrays differ between the batches that a
pipeline yields (stored) and those that `segjax.forward` passes to models, objectives
and metrics (computed):

| name | stored | computed | meaning |
| --- | --- | --- | --- |
| image | uint8, uint16 or float32 [B, H, W, K] | float32, preprocessed | any K >= 1 |
| label | uint8 or uint16 [B, H, W] | int32, 0 where not valid | class id; 255 (65535 \
in uint16) is no class |
| valid | absent | bool [B, H, W] | False: ignored, or padding |

The others are the same in both:

| name | shape | meaning |
| --- | --- | --- |
| weight | float32 [B] | 0 for the padding of a short batch, else 1 |
| index | int32 [B] | position in the epoch's stream, which seeds random numbers |
| boxes | float32 [B, N, 4] | x0, y0, x1, y1 in pixels, edges at whole numbers |
| classes | int32 [B, N] | class id of each object, 1..; 0 in an empty slot |
| masks | bool [B, N, H, W] | pixels of each object; masks may overlap |
| object_mask | bool [B, N] | False for empty slots |
| crowd | bool [B, N] | True for crowd regions; all False in training |
| size | int32 [B, 2] | height and width of the image in the top left of its array |

The last six exist only with `max_objects`. Other names are fields of the pipeline: maps
[B, H, W, ...] or one value per image; see `Field`.
"""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

IGNORE_INDEX = 255
"""The label id of ignored pixels in files; `valid` is False there."""

Array = jax.Array | np.ndarray
Key = jax.Array
"""A typed JAX key, `jax.random.key(seed)`."""

Image = Float[Array, "b h w k"]
Logits = Float[Array, "b h w c"]
Labels = Integer[Array, "b h w"]
Valid = Bool[Array, "b h w"] | Integer[Array, "b h w"]
"""True, or not 0, at pixels that count."""
PerExample = Float[Array, " b"]

Batch = Mapping[str, Any]
"""One batch, or one example (the same names without the batch axis)."""

Example = dict[str, Any]
PyTree = Any
Scalars = dict[str, Any]

Loss = Callable[..., PerExample]
"""`(logits [B,H,W,C], labels [B,H,W], valid [B,H,W], *, options) -> float32 [B]`."""

Objective = Callable[..., dict[str, PerExample]]
"""`(outputs, batch) -> {name: [B] weighted loss}`. If it has a keyword `step`, that is
the number of updates so far, int32."""

Augmentation = Callable[[Key, Example], Example]
"""`(key, example) -> example`: pure JAX on one example, vmapped inside the step over
the axis `EXAMPLES`."""

EXAMPLES = "examples"
"""The name of the axis over which a step maps augmentations, for those that mix."""

Preprocess = Callable[[Array], Array]
"""`image [..., H, W, K] as stored -> float32`: pure, runs on the device."""

ModelInputs = Callable[[Batch], dict[str, Any]]
"""`computed batch -> {name: argument}` for the call of the model."""


@dataclasses.dataclass(frozen=True)
class Field:
    """How a further entry of an example is transformed with its image.

    Attributes:
        resample: "linear" or "nearest": a map [H, W] or [H, W, K] of the image's size.
            It is cropped, padded with 0 and warped with the image, by linear or
            nearest-neighbor interpolation (the latter for ids and masks). "none": a
            value of the example, of any fixed shape, which is not transformed.
    """

    resample: Literal["linear", "nearest", "none"]

    def __post_init__(self):
        if self.resample not in ("linear", "nearest", "none"):
            raise ValueError(
                f'Field needs "linear", "nearest" or "none", got {self.resample!r}.'
            )


@runtime_checkable
class Metric(Protocol):
    """Mergeable statistics of a metric, made on the device and merged on the host."""

    def merge(self, other: Any) -> Any:
        """Combines two metrics; associative and commutative."""
        ...

    def compute(self) -> dict[str, float]:
        """Computes the scores; keys name their reduction."""
        ...


MetricFn = Callable[[Any, Batch], Metric]
"""`(outputs, batch) -> Metric`, traced inside the compiled evaluation step."""


@runtime_checkable
class Data(Protocol):
    """Data for training and evaluation."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is an index into this tuple."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """Names of the available splits, such as train, validation, test."""
        ...

    def num_examples(self, split: str) -> int:
        """Number of examples in a split."""
        ...

    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        first_batch: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Yields an infinite stream of host batches, determined by the arguments."""
        ...

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Yields every example once over all processes, padded with rows of weight 0.

        `batch_size` is global; process 0 has its first rows, process 1 the next. All
        processes get the same number of batches, of the same shapes in the same order.
        """
        ...

    def fingerprint(self) -> str:
        """Returns a digest of the prepared data and of how it is read."""
        ...
