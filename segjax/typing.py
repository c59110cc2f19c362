"""Every shared shape and function type, once.

Letters: B batch, H W pixels, C classes, N instances (padded), A anchors, S seeds.

A batch is a mapping from names to arrays. As a pipeline yields it (stored), and as
objectives, metrics and models get it (computed, by `segjax.forward`):

| name | stored | computed | meaning |
| --- | --- | --- | --- |
| image | uint8, uint16 or float32 [B, H, W, K] | float32, preprocessed | any K >= 1 |
| label | uint8 or uint16 [B, H, W] | int32, 0 where not valid | class id; 255 (65535 \
in uint16) is no class |
| valid | absent | bool [B, H, W] | False: ignored, or padding |

and, the same in both:

| name | shape | meaning |
| --- | --- | --- |
| weight | float32 [B] | 0 for the padding of a short batch, else 1 |
| index | int32 [B] | place in the epoch's stream: the key of its random numbers |
| boxes | float32 [B, N, 4] | x0, y0, x1, y1 in pixels, edges at whole numbers |
| classes | int32 [B, N] | class id of each object, 1..; 0 in a slot without one |
| masks | bool [B, N, H, W] | its pixels; masks may overlap |
| object_mask | bool [B, N] | the slots that hold an object |
| crowd | bool [B, N] | the slots of regions of many; none in training |
| size | int32 [B, 2] | height and width of the image in the top left of its array |

The last six are there where objects were asked for. Any further name is a field that
the pipeline was asked for: a map [B, H, W, ...] or a value an image; see `Field`.
"""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

IGNORE_INDEX = 255
"""The label id that stands for "not a class" in files; batches turn it into `valid`."""

Array = jax.Array | np.ndarray
Key = jax.Array
"""A typed JAX key, `jax.random.key(seed)`."""

Image = Float[Array, "b h w k"]
Logits = Float[Array, "b h w c"]
Labels = Integer[Array, "b h w"]
Valid = Bool[Array, "b h w"]
PerExample = Float[Array, " b"]

Batch = Mapping[str, Any]
"""One batch, or one example (the same names without the batch axis)."""

Example = dict[str, Any]
PyTree = Any
Scalars = dict[str, Any]

Loss = Callable[..., PerExample]
"""`(logits [B,H,W,C], labels [B,H,W], valid [B,H,W], *, options) -> float32 [B]`."""

Objective = Callable[..., dict[str, PerExample]]
"""`(outputs, batch) -> {name: [B] weighted loss}`; one with a keyword `step` is also
given the number of updates done, int32."""

Augmentation = Callable[[Key, Example], Example]
"""`(key, example) -> example`: pure JAX on one example, vmapped inside the step."""

Preprocess = Callable[[Array], Array]
"""`image [..., H, W, K] as stored -> float32`: pure, on the device, in every path."""

ModelInputs = Callable[[Batch], dict[str, Any]]
"""`computed batch -> {name: argument}` of the model's call."""


@dataclasses.dataclass(frozen=True)
class Field:
    """How a further entry of an example moves with its image.

    Attributes:
        resample: "linear" or "nearest": a map [H, W] or [H, W, K] of the image's size,
            which is cropped, padded with 0 and moved as the image is, read between
            pixels or at the nearest one (ids, masks). "none": a value of the whole
            example, of any one shape, passed on as it is.
    """

    resample: Literal["linear", "nearest", "none"]

    def __post_init__(self):
        if self.resample not in ("linear", "nearest", "none"):
            raise ValueError(
                f'Field needs "linear", "nearest" or "none", got {self.resample!r}.'
            )


@runtime_checkable
class Metric(Protocol):
    """A sufficient statistic: made on the device, merged and read on the host."""

    def merge(self, other: Any) -> Any:
        """Adds two statistics; associative and commutative."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics, each key naming its reduction."""
        ...


MetricFn = Callable[[Any, Batch], Metric]
"""`(outputs, batch) -> Metric`, traced inside the compiled evaluation step."""


@runtime_checkable
class Data(Protocol):
    """What training and evaluation need to know of data."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is a position in this tuple."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits that exist, such as train, validation, test."""
        ...

    def num_examples(self, split: str) -> int:
        """Examples in a split."""
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
        """Endless stream of host batches, a pure function of its arguments."""
        ...

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Every example once over all processes; padded with rows of weight 0.

        `batch_size` is global; process 0 has its first rows, process 1 the next. All
        processes get as many batches, of equal shapes in the same order.
        """
        ...

    def fingerprint(self) -> str:
        """A digest of the prepared data and of how it is read."""
        ...
