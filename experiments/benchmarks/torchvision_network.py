"""torchvision's Mask R-CNN, and random weights for it that ours reads too."""

import pathlib
import sys
from typing import Any

import numpy as np
import torch
from mask_rcnn_work import CLASSES, Task

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
import torchvision_cpu
from torchvision_cpu import torchvision

COMPILED_OPERATIONS = torchvision_cpu._LIBRARY is None
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network(task: Task) -> Any:
    """Torchvision's, that takes images as large as they are."""
    detection = torchvision.models.detection
    body = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=task.body,
        weights=None,
        norm_layer=torchvision.ops.FrozenBatchNorm2d,
        trainable_layers=3,
    )
    made = detection.MaskRCNN(
        body,
        num_classes=CLASSES,
        rpn_pre_nms_top_n_train=task.before_nms,
        rpn_pre_nms_top_n_test=task.before_nms,
        rpn_post_nms_top_n_train=task.proposals,
        rpn_post_nms_top_n_test=task.proposals,
        box_batch_size_per_image=task.sampled,
        box_detections_per_img=task.detections,
    )
    made.transform.resize = lambda image, target: (image, target)
    return made


def save_weights(task: Task, path: pathlib.Path) -> None:
    """Writes a state dict for both systems, random.

    Norms are not the identity, or features would grow from block to block; scores of
    classes differ, or there would be no detection above the threshold.
    """
    torch.manual_seed(0)
    made = network(task)
    for name, module in made.named_modules():
        if hasattr(module, "running_var"):
            low, high = (0.3, 0.6) if "body" in name else (0.8, 1.2)
            module.weight.data.uniform_(low, high)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.nn.init.normal_(made.roi_heads.box_predictor.cls_score.weight, std=1.0)
    np.savez(path, **{name: x.numpy() for name, x in made.state_dict().items()})


def loaded(task: Task) -> Any:
    """The network with those weights, on the device, channels last."""
    made = network(task)
    with np.load(task.weights) as state:
        made.load_state_dict({k: torch.from_numpy(state[k]) for k in state.files})
    return made.to(DEVICE).to(memory_format=torch.channels_last)
