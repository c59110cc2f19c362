"""Object metrics of semantic segmentation networks, by connected components."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.metrics.combine import Combined, on_host
from segjax.metrics.common import check_one_size, wrong_pixels
from segjax.metrics.contingency import connected_components
from segjax.metrics.rows import WRONG
from segjax.ops import checks
from segjax.typing import Batch, Logits, Metric, MetricFn

Separate = Callable[[np.ndarray], np.ndarray]
ObjectMetric = Callable[[np.ndarray, np.ndarray, np.ndarray, Batch], Metric]
"""`(predicted ids, truth ids, valid, batch) -> Metric` on the host."""


def objects(
    *object_metrics: ObjectMetric,
    foreground: int = 1,
    connectivity: int = 1,
    separate: Separate | None = None,
) -> MetricFn:
    """Builds metrics of the connected components of a class and the batch's instances.

    Components are computed and matched on the host, once per batch, outside the step.

    Args:
        *object_metrics: Such as `Matching.from_batch`, `Panoptic.from_objects`,
            `AggregatedJaccard.from_batch` and `rand_scores`.
        foreground: The class whose connected components are objects.
        connectivity: 1 for neighbors that share a side, 2 for corners as well.
        separate: Makes the predicted objects instead of connected components, such as
            a watershed (`inference.instances`): `probabilities float32 [H, W, C] of
            an image -> ids [H, W]`. `foreground` and `connectivity` then do not matter.

    Returns:
        `(logits, batch) -> OnHost`; the batch has `instances` int [B, H, W], 0 for
        background, besides `valid`, `index` and `weight`.
    """

    def truth(batch: Batch) -> Any:
        if "instances" not in batch:
            raise UserError(
                f"objects needs a batch with instances, got {', '.join(batch)}. Set "
                f"fields={{'instances': Field('nearest')}} in the pipeline, or use "
                f"metrics.regions if the truth has class labels only."
            )
        return batch["instances"]

    def ids_of(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.where(valid, ids, 0)

    return _objects(
        object_metrics,
        truth,
        ids_of,
        foreground=foreground,
        connectivity=connectivity,
        separate=separate,
    )


def regions(
    *object_metrics: ObjectMetric, foreground: int = 1, connectivity: int = 1
) -> MetricFn:
    """Builds metrics of the connected components of a class in logits and labels.

    Like `objects`, for data whose objects never touch, such as cells between membranes.
    """

    def ids_of(label: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return connected_components(
            (label == foreground) & valid, connectivity=connectivity
        )

    return _objects(
        object_metrics,
        lambda batch: batch["label"],
        ids_of,
        foreground=foreground,
        connectivity=connectivity,
    )


def of_id_maps(
    object_metric: ObjectMetric,
    predicted: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
) -> Any:
    """Scores objects that are there already, such as those of another program.

        of_id_maps(Matching.from_batch, predicted, truth).compute()

    Args:
        object_metric: Such as `Matching.from_batch` and `Panoptic.from_objects`.
        predicted: Of each image, ids int [H, W], 0 for background.
        truth: Of the same images in the same order; sizes may differ between images.

    Returns:
        The metric of all images together.

    Raises:
        ValueError: If there are no images, their numbers differ, or the two maps of an
            image have different sizes.
    """
    if len(predicted) != len(truth) or not len(truth):
        raise UserError(
            f"of_id_maps needs two maps for each image, got {len(predicted)} predicted "
            f"and {len(truth)} true ones."
        )
    metric = None
    for index, (found, true) in enumerate(zip(predicted, truth, strict=True)):
        if found.shape != true.shape or found.ndim != 2:
            raise UserError(
                f"of_id_maps needs pairs of maps [H, W], got {list(found.shape)} and "
                f"{list(true.shape)} for image {index}."
            )
        row = {"index": np.array([index]), "weight": np.ones(1, np.float32)}
        valid = np.ones((1, *true.shape), bool)
        part = object_metric(found[None], true[None], valid, row)
        metric = part if metric is None else metric.merge(part)
    return metric


def _objects(
    object_metrics,
    truth,
    ids_of,
    *,
    foreground: int,
    connectivity: int,
    separate: Separate | None = None,
) -> MetricFn:
    if not object_metrics:
        raise UserError(
            "objects and regions need at least one metric, got none. Try "
            "Matching.from_batch."
        )

    def gather(logits: Logits, batch: Batch) -> Mapping[str, Any]:
        check_one_size(logits, batch["valid"])
        truth(batch)
        valid = checks.as_mask("valid", batch["valid"])
        predicted = (
            jnp.argmax(logits, axis=-1) == foreground
            if separate is None
            else jax.nn.softmax(logits.astype(jnp.float32))
        )
        return {
            "predicted": predicted,
            WRONG: wrong_pixels(logits, None, valid),
        }

    def make(arrays: Mapping[str, Any], batch: Batch) -> Combined:
        # Padding rows are dropped before the slow part.
        kept = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        rows: dict[str, Any] = {k: np.asarray(v)[kept] for k, v in batch.items()}
        rows[WRONG] = {k: np.asarray(v)[kept] for k, v in arrays[WRONG].items()}
        valid = np.asarray(checks.as_mask("valid", rows["valid"]))
        predicted = np.asarray(arrays["predicted"])[kept]
        if separate is None:
            predicted = connected_components(
                predicted & valid, connectivity=connectivity
            )
        elif len(predicted):
            predicted = np.stack([separate(probs) for probs in predicted]) * valid
        else:
            predicted = np.zeros(valid.shape, np.int32)
        ids = ids_of(np.asarray(truth(batch))[kept], valid)
        made = tuple(f(predicted, ids, valid, rows) for f in object_metrics)
        return Combined(made, ("",) * len(made))

    return on_host(gather, make)
