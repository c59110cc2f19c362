"""Mask R-CNN: anchors, region proposals, heads and outputs."""

from segjax.models.detection.mask_rcnn import (
    MaskRCNN,
    instances,
    mask_rcnn_inputs,
    mask_rcnn_resnet50_fpn,
    mask_rcnn_resnet50_fpn_v2,
)
from segjax.models.detection.outputs import Detections, MaskRCNNTraining
from segjax.models.detection.roi_heads import RoIHeads
from segjax.models.detection.rpn import RPN

__all__ = [
    "RPN",
    "Detections",
    "MaskRCNN",
    "MaskRCNNTraining",
    "RoIHeads",
    "instances",
    "mask_rcnn_inputs",
    "mask_rcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2",
]
