"""Segmentation networks, as Flax linen modules."""

from segjax.models import encoders, layers
from segjax.models.adapters import from_equinox, from_nnx
from segjax.models.classifier import Classifier
from segjax.models.decoders.fpn import FPN
from segjax.models.deeplab import DeepLabV3, DeepLabV3Plus, DilatedFCN
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
from segjax.models.encoders.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)
from segjax.models.fcn import FCN
from segjax.models.remat import remat
from segjax.models.shrunk import Shrunk
from segjax.models.simple_cnn import SimpleCNN
from segjax.models.summary import Summary, summarize
from segjax.models.unet import UNet

__all__ = [
    "FCN",
    "FPN",
    "RPN",
    "BasicBlock",
    "Bottleneck",
    "Classifier",
    "DeepLabV3",
    "DeepLabV3Plus",
    "Detections",
    "DilatedFCN",
    "MaskRCNN",
    "MaskRCNNTraining",
    "ResNet",
    "RoIHeads",
    "Shrunk",
    "SimpleCNN",
    "Summary",
    "UNet",
    "encoders",
    "from_equinox",
    "from_nnx",
    "instances",
    "layers",
    "mask_rcnn_inputs",
    "mask_rcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2",
    "remat",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "summarize",
]
