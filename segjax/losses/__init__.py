"""Losses: `(logits, labels, valid, *, options) -> [B]`, one value per image.

For all losses: an image without valid pixels has value 0 and gradient 0; logits and
labels of invalid pixels are ignored; sums are float32 or float64 for logits of any
dtype; and a class that is absent from labels and prediction contributes 0.

`sigmoid_*` and `soft_label_*` take targets [B, H, W, C] in place of labels. `semantic`,
`semantic_weighted`, `deep_supervision`, `instance` and `instance_per_image` build the
objective of a train step.
"""

from segjax.losses.asymmetric import (
    asymmetric_unified_focal,
    focal_tversky,
    symmetric_unified_focal,
    tversky,
)
from segjax.losses.boundaries import boundary, hausdorff, log_hausdorff
from segjax.losses.boxes import ciou_sum, diou_sum, giou_sum
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
from segjax.losses.multilabel import sigmoid_cross_entropy, sigmoid_focal
from segjax.losses.multilabel_regions import (
    sigmoid_dice,
    sigmoid_jaccard,
    sigmoid_lovasz_hinge,
    sigmoid_matthews,
    sigmoid_tversky,
)
from segjax.losses.pixel import balanced_cross_entropy, cross_entropy, focal
from segjax.losses.region import (
    generalized_dice,
    jaccard,
    log_cosh_dice,
    matthews,
    soft_dice,
)
from segjax.losses.robust import (
    hard_bootstrap_cross_entropy,
    poly_cross_entropy,
    soft_bootstrap_cross_entropy,
    soft_label_cross_entropy,
    soft_label_dice,
    symmetric_cross_entropy,
)
from segjax.losses.topology import soft_cldice
from segjax.losses.wasserstein import wasserstein_dice
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
    "ciou_sum",
    "class_sum",
    "cross_entropy",
    "deep_supervision",
    "diou_sum",
    "effective_number",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "giou_sum",
    "hard_bootstrap_cross_entropy",
    "hausdorff",
    "instance",
    "instance_per_image",
    "inverse_frequency",
    "jaccard",
    "log_cosh_dice",
    "log_hausdorff",
    "lovasz_hinge",
    "lovasz_softmax",
    "mask_sum",
    "matthews",
    "median_frequency",
    "objectness_sum",
    "ohem_cross_entropy",
    "pixel_counts",
    "poly_cross_entropy",
    "rpn_box_sum",
    "semantic",
    "semantic_weighted",
    "sigmoid_cross_entropy",
    "sigmoid_dice",
    "sigmoid_focal",
    "sigmoid_jaccard",
    "sigmoid_lovasz_hinge",
    "sigmoid_matthews",
    "sigmoid_tversky",
    "soft_bootstrap_cross_entropy",
    "soft_cldice",
    "soft_dice",
    "soft_label_cross_entropy",
    "soft_label_dice",
    "symmetric_cross_entropy",
    "symmetric_unified_focal",
    "top_k_cross_entropy",
    "tversky",
    "wasserstein_dice",
]
