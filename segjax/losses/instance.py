"""The objective of Mask R-CNN: five losses, averaged over the batch or per image."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from segjax.losses import detection
from segjax.typing import Array, Batch, Objective, PerExample


def instance(
    *,
    objectness: float = 1.0,
    rpn_box: float = 1.0,
    classifier: float = 1.0,
    box: float = 1.0,
    mask: float = 1.0,
) -> Objective:
    """Builds the five losses of Mask R-CNN, each a mean over the entries of the batch.

    With s the sum and n the number of entries of an image, its value is

        s * sum(weight) / sum(weight * n)

    so that the mean over the images of weight 1 is sum(s) / sum(n), torchvision's loss.
    The value of an image depends on the other images of the batch. If a batch is
    processed in parts (gradient accumulation, or pmap over devices), each part is
    normalized on its own. If all images have the same number of entries, as with full
    samples of anchors and proposals, `instance_per_image` gives the same values.

    Args:
        objectness: Weight of `objectness_sum`.
        rpn_box: Weight of `rpn_box_sum`.
        classifier: Weight of `class_sum`.
        box: Weight of `box_sum`.
        mask: Weight of `mask_sum`.

    Returns:
        An objective, `(outputs, batch) -> {name: [B]}`, for outputs of a model in
        training that have the arguments of the five functions as attributes, as
        `models.MaskRCNNTraining` does. An image without entries has value 0. Other
        outputs, such as detections in evaluation, have no terms.

    Reference:
        He et al., Mask R-CNN, ICCV 2017, arXiv:1703.06870, normalized as torchvision
        does.
    """
    weights = (objectness, rpn_box, classifier, box, mask)
    return _objective(weights, _over_batch)


def instance_per_image(
    *,
    objectness: float = 1.0,
    rpn_box: float = 1.0,
    classifier: float = 1.0,
    box: float = 1.0,
    mask: float = 1.0,
) -> Objective:
    """Builds the losses of `instance`, each a mean over the entries of its own image.

    Images have equal weight, whatever their number of objects, and the value of an
    image does not depend on its batch.

    Args:
        objectness: Weight of `objectness_sum`.
        rpn_box: Weight of `rpn_box_sum`.
        classifier: Weight of `class_sum`.
        box: Weight of `box_sum`.
        mask: Weight of `mask_sum`.

    Returns:
        An objective, as for `instance`.
    """
    weights = (objectness, rpn_box, classifier, box, mask)
    return _objective(weights, _over_image)


def _objective(
    weights: tuple[float, ...], normalize: Callable[[detection.Sum, Array], PerExample]
) -> Objective:
    names = ("objectness", "rpn_box", "classifier", "box", "mask")

    def objective(outputs: Any, batch: Batch) -> dict[str, PerExample]:
        if not hasattr(outputs, "objectness"):
            return {}  # Detections have no losses.
        image_weight = jnp.asarray(batch["weight"])
        return {
            name: weight * normalize(term, image_weight)
            for name, weight, term in zip(names, weights, _terms(outputs), strict=True)
        }

    return objective


def _terms(outputs: Any) -> tuple[detection.Sum, ...]:
    anchors = outputs.anchor_positive, outputs.anchor_negative
    classes, proposal_mask = outputs.class_targets, outputs.proposal_mask
    return (
        detection.objectness_sum(outputs.objectness, *anchors),
        detection.rpn_box_sum(
            outputs.anchor_deltas, outputs.anchor_delta_targets, *anchors
        ),
        detection.class_sum(outputs.class_logits, classes, proposal_mask),
        detection.box_sum(
            outputs.box_deltas, outputs.box_delta_targets, classes, proposal_mask
        ),
        detection.mask_sum(
            outputs.mask_logits, outputs.mask_targets, outputs.mask_sampled
        ),
    )


def _over_batch(term: detection.Sum, weight: Array) -> PerExample:
    entries = jnp.sum(weight * term.count)
    share = jnp.sum(weight) / jnp.where(entries > 0, entries, 1)
    return term.total * share


def _over_image(term: detection.Sum, weight: Array) -> PerExample:
    del weight
    return term.total / jnp.maximum(term.count, 1)
