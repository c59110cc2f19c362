"""Object metrics of a network that gives one logit map per image."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from segjax.metrics.combine import Combined, on_host
from segjax.metrics.common import check_one_size
from segjax.metrics.contingency import connected_components
from segjax.typing import Batch, Logits, Metric, MetricFn

ObjectMetric = Callable[[np.ndarray, np.ndarray, np.ndarray, Batch], Metric]
"""`(predicted ids, truth ids, valid, batch) -> Metric` on the host."""


def objects(
    *makes: ObjectMetric, foreground: int = 1, connectivity: int = 1
) -> MetricFn:
    """Scores the connected regions of a class against the objects of the batch.

    Regions are found and matched on the host, once a batch, outside the step.

    Args:
        *makes: Such as `Matching.from_batch`, `Panoptic.of_objects`,
            `AggregatedJaccard.from_batch` and `rand_scores`.
        foreground: The class whose regions are objects.
        connectivity: 1 joins pixels by their sides, 2 by their corners too.

    Returns:
        `(logits, batch) -> OnHost`; the batch has `instances` int [B, H, W], 0 for
        none, beside `valid`, `index` and `weight`.
    """

    def truth(batch: Batch) -> Any:
        if "instances" not in batch:
            raise ValueError(
                f"objects needs a batch with instances, got {', '.join(batch)}. Give "
                f"the pipeline fields={{'instances': Field('nearest')}}, or use "
                f"metrics.regions where truth has class labels only."
            )
        return batch["instances"]

    def ids_of(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.where(valid, ids, 0)

    return _objects(
        makes, truth, ids_of, foreground=foreground, connectivity=connectivity
    )


def regions(
    *makes: ObjectMetric, foreground: int = 1, connectivity: int = 1
) -> MetricFn:
    """Scores the connected regions of a class against those of the labels.

    As `objects`, for data whose objects never touch, such as cells between membranes.
    """

    def ids_of(label: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return connected_components((label == foreground) & valid, connectivity=connectivity)

    return _objects(
        makes,
        lambda batch: batch["label"],
        ids_of,
        foreground=foreground,
        connectivity=connectivity,
    )


def _objects(makes, truth, ids_of, *, foreground: int, connectivity: int) -> MetricFn:
    if not makes:
        raise ValueError(
            "Object metrics need what to make, got none. Try Matching.from_batch."
        )

    def gather(logits: Logits, batch: Batch) -> Mapping[str, Any]:
        check_one_size(logits, batch["valid"])
        truth(batch)
        return {"predicted": jnp.argmax(logits, axis=-1) == foreground}

    def make(arrays: Mapping[str, Any], batch: Batch) -> Combined:
        # Padding rows are left out before the slow part, not after it.
        kept = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        rows = {k: np.asarray(v)[kept] for k, v in batch.items()}
        valid = rows["valid"]
        predicted = np.asarray(arrays["predicted"])[kept] & valid
        predicted = connected_components(predicted, connectivity=connectivity)
        ids = ids_of(np.asarray(truth(batch))[kept], valid)
        made = tuple(f(predicted, ids, valid, rows) for f in makes)
        return Combined(made, ("",) * len(made))

    return on_host(gather, make)
