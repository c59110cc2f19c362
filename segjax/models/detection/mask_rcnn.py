"""Mask R-CNN (He et al., 2017, arXiv:1703.06870), as in torchvision."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers, region
from segjax.models.decoders.fpn import FPN
from segjax.models.detection.outputs import Detections, MaskRCNNTraining
from segjax.models.detection.roi_heads import RoIHeads
from segjax.models.detection.rpn import RPN
from segjax.models.encoders.encoder import Encoder
from segjax.models.encoders.resnet import resnet50
from segjax.typing import Array, Batch, Image, Key

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet, with which torchvision normalizes images."""


class MaskRCNN(nn.Module):
    """Detects objects and segments each of them.

    Images of different sizes may be padded to one shape. Results do not depend on the
    amount or the content of the padding, and equal those of torchvision for a single
    image. torchvision pads an image with zeros, after normalization, to multiples of
    32, and convolutions spread features into this border. Here that size is the extent
    of the image, and features outside the extent are set to zero. (torchvision pads all
    images of a batch to the largest, so the results of an image depend slightly on the
    others.)

    The parts are arguments with their own hyperparameters. The defaults are
    torchvision's `maskrcnn_resnet50_fpn`.

    Attributes:
        body: Any encoder of `models.encoders` with strides 4, 8, 16 and 32, which sees
            normalized images.
        fpn: Computes a feature pyramid with one more level from these.
        rpn: Computes proposals from the pyramid.
        roi_heads: Computes detections from proposals; has the number of classes.
        mean: Mean per channel, of images in [0, 1].
        std: Standard deviation per channel.
        upscale: Factor by which images are upsampled before the body. With 2, objects
            of 8 pixels are treated as objects of 16, at four times the cost. Anchor
            sizes refer to the upsampled image; everything else, boxes included, to the
            given one.
        dtype: Dtype of the computation; parameters, boxes, scores and logits are
            float32.
    """

    task: ClassVar[str] = "instance"

    roi_heads: RoIHeads = RoIHeads(num_classes=91)
    body: Encoder = resnet50()
    fpn: FPN = FPN()
    rpn: RPN = RPN()
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    upscale: int = 1
    dtype: Any = jnp.float32

    def __call__(
        self,
        image: Image,
        *,
        train: bool = False,
        size: Int[Array, "b 2"] | None = None,
        targets: Mapping[str, Array] | None = None,
    ) -> MaskRCNNTraining | Detections:
        """Runs the network.

        Args:
            image: [B, H, W, K] in [0, 1]. Not resized; torchvision's weights expect a
                shorter side of 800 and a longer one of at most 1333 pixels.
            train: True returns inputs of the losses, sampled with the key "dropout".
            size: [B, 2], (height, width) of the image in the top left of each array;
                None if images are not padded.
            targets: In training, the objects, padded to N slots: `boxes` float32
                [B, N, 4] (x0, y0, x1, y1) in pixels at pixel edges, `classes` int32
                [B, N] in [1, C), `masks` bool [B, N, H, W], `object_mask` bool [B, N].

        Returns:
            Predictions and their targets in training, detections otherwise.

        Raises:
            ValueError: If there are no targets in training.
        """
        layers.check_image(image)
        times = self.upscale
        if times > 1:
            image = ops.upsample_nearest(image, times)
            size = None if size is None else size * times
            targets = None if targets is None else _upscaled_targets(targets, times)
        outputs = self._run(image, size, targets, train=train)
        if isinstance(outputs, MaskRCNNTraining) or times == 1:
            return outputs
        return dataclasses.replace(
            outputs, boxes=outputs.boxes / times, size=outputs.size // times
        )

    @nn.compact
    def _run(
        self,
        image: Image,
        size: Array | None,
        targets: Mapping[str, Array] | None,
        *,
        train: bool,
    ) -> MaskRCNNTraining | Detections:
        """The network, for upsampled images."""
        shape = image.shape[1:3]
        padded = size is not None
        if size is None:
            size = jnp.full((image.shape[0], 2), jnp.asarray(shape), jnp.int32)
        size = jnp.asarray(size, jnp.int32)
        extent = (size + 31) // 32 * 32
        x = self._normalized(image, size)
        pixel_masks = [None] * 6
        if padded:
            full = region.top_left(extent, x.shape[1], x.shape[2])
            masks = [region.stride(full, 4 * 2**i) for i in range(4)]
            pixel_masks = [full, *masks, region.stride(masks[-1], 2)]
        maps = self.body(x, train=train, pixel_mask=pixel_masks[0])
        maps = [m for m, s in zip(maps, self.body.strides, strict=True) if s >= 4]
        pyramid = self.fpn(maps, train=train, pixel_masks=pixel_masks[1:5])
        objectness, deltas = self.rpn(pyramid, pixel_masks[1:])
        anchors = self.rpn.anchors(pyramid, extent)
        proposals = self.rpn.proposals(objectness, deltas, anchors, size, train=train)
        if not train:
            found = self.roi_heads.detect(pyramid[:4], *proposals, size, extent)
            return Detections(size=size, aligned=self.roi_heads.aligned, **found)
        if targets is None:
            raise UserError(
                "MaskRCNN needs targets in training, got none. Set "
                "model_inputs=models.mask_rcnn_inputs in the experiment."
            )
        keys = _keys(self.make_rng("dropout"), len(image))
        objects = targets["boxes"], targets["object_mask"]
        learned = self.rpn.targets(keys[:, 0], anchors, *objects)
        learned |= self.roi_heads.training_outputs(
            keys[:, 1], pyramid[:4], *proposals, targets, size, extent
        )
        return MaskRCNNTraining(objectness=objectness, anchor_deltas=deltas, **learned)

    def _normalized(self, image: Array, size: Array) -> Array:
        """Normalizes images, zeros padding, and pads to sizes divisible by 32."""
        mean, std = (
            jnp.asarray(v, jnp.float32)[None, None, None] for v in (self.mean, self.std)
        )
        height, width, channels = image.shape[1:]
        if not len(self.mean) == len(self.std) == channels:
            raise UserError(
                f"MaskRCNN needs a mean and a std for each of {channels} channels, got "
                f"{len(self.mean)} and {len(self.std)}. Set mean= and std=."
            )
        x = (jnp.asarray(image, jnp.float32) - mean) / std
        x = region.zero_outside(x, region.top_left(size, height, width))
        rest = ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0))
        return jnp.pad(x, rest).astype(self.dtype)


def mask_rcnn_inputs(batch: Batch) -> dict[str, Any]:
    """Builds the arguments of `MaskRCNN` from a batch, for `Experiment.model_inputs`.

    Args:
        batch: `image`; `size` if images are padded; `boxes`, `classes`, `masks` and
            `object_mask` in training.
    """
    objects = ("boxes", "classes", "masks", "object_mask")
    inputs: dict[str, Any] = {"image": batch["image"], "size": batch.get("size")}
    if set(objects) <= batch.keys():
        inputs["targets"] = {name: batch[name] for name in objects}
    return inputs


def mask_rcnn_resnet50_fpn(num_classes: int = 91) -> MaskRCNN:
    """Builds torchvision's `maskrcnn_resnet50_fpn`; `segjax import` reads its weights.

    Args:
        num_classes: C, with background as class 0.
    """
    return MaskRCNN(roi_heads=RoIHeads(num_classes))


def mask_rcnn_resnet50_fpn_v2(num_classes: int = 91) -> MaskRCNN:
    """Builds torchvision's `maskrcnn_resnet50_fpn_v2`: batch norm, deeper heads.

    Args:
        num_classes: C, with background as class 0.
    """
    norm = layers.batch_norm
    return MaskRCNN(
        body=resnet50(norm=norm),
        fpn=FPN(norm=norm),
        rpn=RPN(convs=2),
        roi_heads=RoIHeads(num_classes, box_convs=4, box_denses=1, norm=norm),
    )


def instances(outputs: Detections) -> list[dict[str, np.ndarray]]:
    """Converts detections to one dict per image, with pasted masks, on the host.

    Args:
        outputs: Outputs of `MaskRCNN` with train=False.

    Returns:
        For each image, with n detections, best first: `boxes` float32 [n, 4], `scores`
        float32 [n], `classes` int32 [n] and `masks` float32 [n, height, width] in
        [0, 1], where pixels of at least 0.5 are object.
    """
    outputs = jax.device_get(outputs)
    result = []
    for i, object_mask in enumerate(outputs.object_mask):
        boxes = outputs.boxes[i][object_mask]
        masks = ops.paste_masks_on_host(
            outputs.masks[i][object_mask],
            boxes,
            size=outputs.size[i],
            aligned=outputs.aligned,
        )
        result.append(
            {
                "boxes": boxes,
                "scores": outputs.scores[i][object_mask],
                "classes": outputs.classes[i][object_mask],
                "masks": masks,
            }
        )
    return result


def _upscaled_targets(targets: Mapping[str, Array], times: int) -> dict[str, Array]:
    """Scales the boxes and masks of objects to an upsampled image."""
    masks = ops.upsample_nearest(targets["masks"], times, axis=2)
    return {**targets, "masks": masks, "boxes": targets["boxes"] * times}


def _keys(key: Key, images: int) -> Key:
    """Keys [B, 2]; those of an image do not depend on the size of the batch."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        key, jnp.arange(images, dtype=jnp.uint32)
    )
    return jax.vmap(functools.partial(jax.random.split, num=2))(keys)
