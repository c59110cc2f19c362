"""What Mask R-CNN returns: fixed-size arrays, so that one program serves any image.

Letters: B images, A anchors of all levels, R sampled proposals an image (the box head's
batch), P of them at most that hold an object (R times the positive fraction), C classes
with background as class 0, D detections, M the side of a predicted mask.
"""

from typing import Any

import flax.struct


@flax.struct.dataclass
class MaskRCNNTraining:
    """Predictions and their targets: all that the five losses need.

    Gradients flow into the predictions alone; proposals and targets are constants.
    Where a mask says that an entry does not count, its target is 0 and finite.

    Attributes:
        objectness: float32 [B, A], logits that an anchor holds an object.
        anchor_deltas: float32 [B, A, 4], predicted (dx, dy, dw, dh) from anchors.
        anchor_delta_targets: float32 [B, A, 4], from an anchor to its object.
        anchor_positive: bool [B, A], anchors sampled as objects.
        anchor_negative: bool [B, A], anchors sampled as background.
        class_logits: float32 [B, R, C] of the sampled proposals.
        box_deltas: float32 [B, R, C, 4], predicted from proposals, one box per class.
        class_targets: int32 [B, R], 0 for background.
        box_delta_targets: float32 [B, R, 4], from a proposal to its object.
        proposal_mask: bool [B, R], slots that hold a proposal. Objects come first.
        mask_logits: float32 [B, P, M, M] of the first P proposals, the mask of the
            class that each should be.
        mask_targets: float32 [B, P, M, M] in [0, 1], the object inside the proposal.
        mask_sampled: bool [B, P], slots whose proposal holds an object.
    """

    # Any, not Array: transformations rebuild it of shapes and None.
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
    """Objects found, best first; slots where `object_mask` is False are zero.

    Attributes:
        boxes: float32 [B, D, 4], (x0, y0, x1, y1) at pixel edges of the input image.
        scores: float32 [B, D], probability of the class.
        classes: int32 [B, D], in [1, C).
        masks: float32 [B, D, M, M], probability of the object inside its box.
        object_mask: bool [B, D].
        size: int32 [B, 2], height and width of the image without its padding.
        aligned: How masks lie in their boxes; see `ops.paste_masks`.
    """

    # Any, as above.
    boxes: Any
    scores: Any
    classes: Any
    masks: Any
    object_mask: Any
    size: Any
    aligned: bool = flax.struct.field(pytree_node=False, default=False)
