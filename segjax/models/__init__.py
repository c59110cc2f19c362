"""Networks from images to logits, as linen modules."""

from segjax.models import layers as layers
from segjax.models.adapters import from_equinox as from_equinox
from segjax.models.adapters import from_nnx as from_nnx
from segjax.models.fcn import FCN as FCN
from segjax.models.fpn import FPN as FPN
from segjax.models.mask_rcnn import MaskRCNN as MaskRCNN
from segjax.models.mask_rcnn import instances as instances
from segjax.models.mask_rcnn import mask_rcnn_inputs as mask_rcnn_inputs
from segjax.models.mask_rcnn import mask_rcnn_resnet50_fpn as mask_rcnn_resnet50_fpn
from segjax.models.mask_rcnn import (
    mask_rcnn_resnet50_fpn_v2 as mask_rcnn_resnet50_fpn_v2,
)
from segjax.models.mask_rcnn_outputs import Detections as Detections
from segjax.models.mask_rcnn_outputs import MaskRCNNTraining as MaskRCNNTraining
from segjax.models.remat import remat as remat
from segjax.models.resnet import ResNet as ResNet
from segjax.models.resnet import resnet18 as resnet18
from segjax.models.resnet import resnet34 as resnet34
from segjax.models.resnet import resnet50 as resnet50
from segjax.models.resnet import resnet101 as resnet101
from segjax.models.roi_heads import RoIHeads as RoIHeads
from segjax.models.rpn import RPN as RPN
from segjax.models.simple_cnn import SimpleCNN as SimpleCNN
from segjax.models.summary import Summary as Summary
from segjax.models.summary import summarize as summarize
from segjax.models.unet import UNet as UNet
