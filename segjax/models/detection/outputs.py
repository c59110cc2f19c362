"""Outputs of Mask R-CNN: arrays of fixed size, for one compiled program.

Letters: B images, A anchors of all levels, R sampled proposals per image (the box
head's batch), P the largest number of positive ones (R times the positive fraction), C
classes with background as class 0, D detections, M the side of a predicted mask.
"""

from typing import Any

import flax.struct


@flax.struct.dataclass
class MaskRCNNTraining:
    """Predictions and their targets: the inputs of the five losses.

    Gradients flow into the predictions only; proposals and targets are constants.
    Targets of entries outside their mask are 0.

    Attributes:
        objectness: float32 [B, A], objectness logits of anchors.
        anchor_deltas: float32 [B, A, 4], predicted (dx, dy, dw, dh) from anchors.
        anchor_delta_targets: float32 [B, A, 4], from an anchor to its object.
        anchor_positive: bool [B, A], anchors sampled as objects.
        anchor_negative: bool [B, A], anchors sampled as background.
        class_logits: float32 [B, R, C] of the sampled proposals.
        box_deltas: float32 [B, R, C, 4], predicted from proposals, one box per class.
        class_targets: int32 [B, R], 0 for background.
        box_delta_targets: float32 [B, R, 4], from a proposal to its object.
        proposal_mask: bool [B, R], slots that hold a proposal. Positive ones are first.
        mask_logits: float32 [B, P, M, M] of the first P proposals, for their target
            class.
        mask_targets: float32 [B, P, M, M] in [0, 1], the object inside the proposal.
        mask_sampled: bool [B, P], slots whose proposal holds an object.
    """

    # Any, not Array: JAX transformations also build it of shapes and None.
    objectness: Any
    anchor_deltas: Any
    anchor_delta_targets: Any
    anchor_positive: Any
    anchor_negative: Any
    class_logits: Any
    box_deltas: Any
    class_targets: Any
    box_delta_targets: Any
    proposal_mask: Any
    mask_logits: Any
    mask_targets: Any
    mask_sampled: Any


@flax.struct.dataclass
class Detections:
    """Detected objects, best first; slots where `object_mask` is False are zero.

    Attributes:
        boxes: float32 [B, D, 4], (x0, y0, x1, y1) at pixel edges of the input image.
        scores: float32 [B, D], probability of the class.
        classes: int32 [B, D], in [1, C).
        masks: float32 [B, D, M, M], probability of the object inside its box.
        object_mask: bool [B, D].
        size: int32 [B, 2], height and width of the image without its padding.
        aligned: How masks are aligned with their boxes; see `ops.paste_masks`.
    """

    # Any, as above.
    boxes: Any
    scores: Any
    classes: Any
    masks: Any
    object_mask: Any
    size: Any
    aligned: bool = flax.struct.field(pytree_node=False, default=False)
