"""Losses: `(logits, labels, valid, *, options) -> [B]`, one value per image.

For all losses: an image without valid pixels has value 0 and gradient 0; logits and
labels of invalid pixels are ignored; sums are float32 or float64 for logits of any
dtype; and a class that is absent from labels and prediction contributes 0.

`sigmoid_*` take targets [B, H, W, C] in place of labels. `semantic`,
`semantic_weighted`, `deep_supervision`, `instance` and `instance_per_image` build the
objective of a train step.
"""

from segjax.losses.asymmetric import asymmetric_unified_focal, focal_tversky, tversky
from segjax.losses.boundaries import boundary, hausdorff
from segjax.losses.compose import deep_supervision, semantic, semantic_weighted
from segjax.losses.detection import (
    box_sum,
    class_sum,
    mask_sum,
    objectness_sum,
    rpn_box_sum,
)
from segjax.losses.hard import ohem_cross_entropy, top_k_cross_entropy
from segjax.losses.instance import instance, instance_per_image
from segjax.losses.lovasz import lovasz_hinge, lovasz_softmax
from segjax.losses.multilabel import sigmoid_cross_entropy, sigmoid_dice, sigmoid_focal
from segjax.losses.pixel import balanced_cross_entropy, cross_entropy, focal
from segjax.losses.region import (
    generalized_dice,
    jaccard,
    log_cosh_dice,
    matthews,
    soft_dice,
)
from segjax.losses.topology import soft_cldice
from segjax.losses.weights import (
    border_weights,
    effective_number,
    inverse_frequency,
    median_frequency,
    pixel_counts,
)

__all__ = [
    "asymmetric_unified_focal",
    "balanced_cross_entropy",
    "border_weights",
    "boundary",
    "box_sum",
    "class_sum",
    "cross_entropy",
    "deep_supervision",
    "effective_number",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "hausdorff",
    "instance",
    "instance_per_image",
    "inverse_frequency",
    "jaccard",
    "log_cosh_dice",
    "lovasz_hinge",
    "lovasz_softmax",
    "mask_sum",
    "matthews",
    "median_frequency",
    "objectness_sum",
    "ohem_cross_entropy",
    "pixel_counts",
    "rpn_box_sum",
    "semantic",
    "semantic_weighted",
    "sigmoid_cross_entropy",
    "sigmoid_dice",
    "sigmoid_focal",
    "soft_cldice",
    "soft_dice",
    "top_k_cross_entropy",
    "tversky",
]
