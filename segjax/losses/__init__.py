"""Losses: `(logits, labels, valid, *, options) -> [B]`, one value per image.

Everywhere: an image without a valid pixel has value 0 and gradient 0; labels and logits
of invalid pixels are never read; sums are float32 whatever the logits are; and a class
that is absent from labels and prediction has loss 0. `sigmoid_*` take targets [B, H, W, C] in
place of labels. `semantic` and the other combinators make objectives of losses.
"""

from segjax.losses.asymmetric import (
    asymmetric_unified_focal as asymmetric_unified_focal,
)
from segjax.losses.asymmetric import focal_tversky as focal_tversky
from segjax.losses.asymmetric import tversky as tversky
from segjax.losses.boundaries import boundary as boundary
from segjax.losses.boundaries import hausdorff as hausdorff
from segjax.losses.compose import deep_supervision as deep_supervision
from segjax.losses.compose import semantic as semantic
from segjax.losses.compose import semantic_weighted as semantic_weighted
from segjax.losses.detection import box_sum as box_sum
from segjax.losses.detection import class_sum as class_sum
from segjax.losses.detection import mask_sum as mask_sum
from segjax.losses.detection import objectness_sum as objectness_sum
from segjax.losses.detection import rpn_box_sum as rpn_box_sum
from segjax.losses.hard import ohem_cross_entropy as ohem_cross_entropy
from segjax.losses.hard import top_k_cross_entropy as top_k_cross_entropy
from segjax.losses.instance import instance as instance
from segjax.losses.instance import instance_per_image as instance_per_image
from segjax.losses.lovasz import lovasz_hinge as lovasz_hinge
from segjax.losses.lovasz import lovasz_softmax as lovasz_softmax
from segjax.losses.multilabel import sigmoid_cross_entropy as sigmoid_cross_entropy
from segjax.losses.multilabel import sigmoid_dice as sigmoid_dice
from segjax.losses.multilabel import sigmoid_focal as sigmoid_focal
from segjax.losses.pixel import balanced_cross_entropy as balanced_cross_entropy
from segjax.losses.pixel import cross_entropy as cross_entropy
from segjax.losses.pixel import focal as focal
from segjax.losses.region import generalized_dice as generalized_dice
from segjax.losses.region import jaccard as jaccard
from segjax.losses.region import log_cosh_dice as log_cosh_dice
from segjax.losses.region import matthews as matthews
from segjax.losses.region import soft_dice as soft_dice
from segjax.losses.topology import soft_cldice as soft_cldice
from segjax.losses.weights import border_weights as border_weights
from segjax.losses.weights import effective_number as effective_number
from segjax.losses.weights import inverse_frequency as inverse_frequency
from segjax.losses.weights import median_frequency as median_frequency
from segjax.losses.weights import pixel_counts as pixel_counts
