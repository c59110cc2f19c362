"""Detections and training targets from proposals, as in torchvision."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.models import layers
from segjax.models.detection import sampling
from segjax.models.detection.heads import BoxHead, MaskHead
from segjax.typing import Array, Key

_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


class RoIHeads(nn.Module):
    """Box and mask heads, selection of detections, and sampling of training targets.

    Attributes:
        num_classes: C, with background as class 0.
        box_convs: 3x3 convolutions of the box head.
        box_denses: Dense layers of the box head.
        box_width: Their channels.
        mask_convs: 3x3 convolutions of the mask head.
        mask_width: Their channels.
        norm: Norm after convolutions, one of those in `layers`.
        box_size: Side of the pooled features of the box head.
        mask_size: Side of the pooled features of the mask head; masks are twice as
            large.
        sampling_ratio: Samples along each axis of a ROIAlign cell.
        score_threshold: Detections have probabilities above this.
        nms_threshold: IoU above which the worse of two detections of a class is
            suppressed.
        detections_per_img: D, the largest number of detections per image.
        fg_iou_thresh: Smallest IoU of a positive proposal.
        bg_iou_thresh: IoU below which a proposal is negative.
        batch_size_per_image: R, proposals sampled for the losses.
        positive_fraction: Largest fraction of positive proposals among these.
        bbox_reg_weights: Factors of the encoded boxes; see `ops.encode_boxes`.
        aligned: True pools features and masks exactly at the boxes, as detectron2 does.
            False shifts them by half a pixel of each map, as torchvision does and its
            weights require. True is better for small objects.
        axis_name: Passed to the norm.
    """

    num_classes: int
    box_convs: int = 0
    box_denses: int = 2
    box_width: int = 1024
    mask_convs: int = 4
    mask_width: int = 256
    norm: layers.Norm = layers.no_norm
    box_size: int = 7
    mask_size: int = 14
    sampling_ratio: int = 2
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_img: int = 100
    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.5
    batch_size_per_image: int = 512
    positive_fraction: float = 0.25
    bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
    aligned: bool = False
    axis_name: str | None = None

    def setup(self):
        """Builds the heads."""
        self.box = BoxHead(
            self.num_classes,
            convs=self.box_convs,
            denses=self.box_denses,
            width=self.box_width,
            norm=self.norm,
            axis_name=self.axis_name,
        )
        self.mask = MaskHead(
            self.num_classes,
            convs=self.mask_convs,
            width=self.mask_width,
            norm=self.norm,
            axis_name=self.axis_name,
        )

    def detect(
        self,
        pyramid: Sequence[Array],
        proposals: Array,
        object_mask: Array,
        size: Array,
        extent: Array,
    ) -> dict[str, Array]:
        """Computes the detections.

        Args:
            pyramid: Maps [B, H, W, *] at strides 4, 8, 16 and 32.
            proposals: [B, K, 4].
            object_mask: bool [B, K].
            size: int32 [B, 2] of the images.
            extent: int32 [B, 2], sizes rounded up to multiples of 32.

        Returns:
            The fields of `Detections`, except for `size` and `aligned`.
        """
        regions = self._roi_align(pyramid, proposals, extent, self.box_size)
        batch, number = object_mask.shape
        logits, deltas = self.box(_flat(regions), object_mask.ravel(), train=False)
        probs = jax.nn.softmax(logits).reshape(batch, number, -1)
        deltas = deltas.reshape(*probs.shape, 4)
        found = jax.vmap(self._select_detections)(
            probs, deltas, proposals, object_mask, size
        )
        regions = self._roi_align(pyramid, found["boxes"], extent, self.mask_size)
        chosen = found["classes"].ravel(), found["object_mask"].ravel()
        masks = self.mask(_flat(regions), *chosen, train=False)
        masks = masks.reshape(batch, -1, *masks.shape[1:])
        kept = found["object_mask"][..., None, None]
        return found | {"masks": jnp.where(kept, jax.nn.sigmoid(masks), 0)}

    def _select_detections(
        self, probs, deltas, proposals, object_mask, size
    ) -> dict[str, Array]:
        """Selects the best boxes of one image, at most `detections_per_img`."""
        boxes = ops.decode_boxes(
            deltas[:, 1:], proposals[:, None], weights=self.bbox_reg_weights
        )
        boxes = ops.clip_boxes(boxes, size)
        valid = jnp.all(boxes[..., 2:] - boxes[..., :2] >= 1e-2, axis=-1)
        valid &= (probs[:, 1:] > self.score_threshold) & object_mask[:, None]
        classes = jnp.arange(1, self.num_classes, dtype=jnp.int32)
        classes = jnp.broadcast_to(classes[None], valid.shape).ravel()
        boxes, scores = boxes.reshape(-1, 4), probs[:, 1:].ravel()
        index, kept = ops.multiclass_nms(
            boxes,
            scores,
            classes,
            valid.ravel(),
            iou_threshold=self.nms_threshold,
            max_outputs=self.detections_per_img,
        )
        return {
            "boxes": jnp.where(kept[:, None], boxes[index], 0),
            "scores": jnp.where(kept, scores[index], 0),
            "classes": jnp.where(kept, classes[index], 0),
            "object_mask": kept,
        }

    def training_outputs(
        self,
        key: Key,
        pyramid: Sequence[Array],
        proposals: Array,
        object_mask: Array,
        targets: Mapping[str, Array],
        size: Array,
        extent: Array,
    ) -> dict[str, Array]:
        """Computes the predictions for sampled proposals, and their targets.

        Args:
            key: A key for each image, [B].
            pyramid: As for `detect`.
            proposals: [B, K, 4].
            object_mask: bool [B, K].
            targets: The objects: boxes [B, N, 4], classes, masks and object_mask.
            size: As for `detect`.
            extent: As for `detect`.

        Returns:
            The fields of `MaskRCNNTraining` that do not begin with `anchor` or
            `objectness`.
        """
        drawn = jax.vmap(self._sample_proposals)(
            key, proposals, object_mask, targets, size
        )
        boxes, proposal_mask = drawn.pop("boxes"), drawn["proposal_mask"]
        batch, number = proposal_mask.shape
        classes, objects = drawn["class_targets"], drawn["mask_sampled"].shape[1]
        regions = self._roi_align(pyramid, boxes, extent, self.box_size)
        logits, deltas = self.box(_flat(regions), proposal_mask.ravel(), train=True)
        regions = self._roi_align(pyramid, boxes[:, :objects], extent, self.mask_size)
        masks = self.mask(
            _flat(regions),
            classes[:, :objects].ravel(),
            drawn["mask_sampled"].ravel(),
            train=True,
        )
        return drawn | {
            "class_logits": logits.reshape(batch, number, -1),
            "box_deltas": deltas.reshape(batch, number, -1, 4),
            "mask_logits": masks.reshape(batch, objects, *masks.shape[1:]),
        }

    def _sample_proposals(
        self, key, proposals, object_mask, targets, size
    ) -> dict[str, Any]:
        """Samples proposals of one image, positive ones first, and their targets."""
        # True boxes are added to the proposals, which are poor early in training.
        boxes = jnp.concatenate([targets["boxes"], proposals])
        ids = sampling.proposal_ids(len(targets["boxes"]), len(proposals))
        number = self.batch_size_per_image
        matches = ops.match(
            ops.box_iou(targets["boxes"], boxes),
            targets["object_mask"],
            jnp.concatenate([targets["object_mask"], object_mask]),
            high_threshold=self.fg_iou_thresh,
            low_threshold=self.bg_iou_thresh,
        )
        index, proposal_mask = ops.sample_balanced(
            sampling.ranks(key, ids),
            matches.positive,
            matches.negative,
            num_samples=number,
            positive_fraction=self.positive_fraction,
        )
        boxes = jnp.where(proposal_mask[:, None], boxes[index], 0)
        positive = proposal_mask & matches.positive[index]
        match = matches.index[index]
        deltas = ops.encode_boxes(
            targets["boxes"][match], boxes, weights=self.bbox_reg_weights
        )
        first = int(number * self.positive_fraction)
        masks = ops.crop_masks(
            targets["masks"],
            match[:first],
            boxes[:first],
            size=2 * self.mask_size,
            aligned=self.aligned,
            image_size=size,
        )
        return {
            "boxes": boxes,
            "proposal_mask": proposal_mask,
            "class_targets": jnp.where(positive, targets["classes"][match], 0),
            "box_delta_targets": jnp.where(positive[:, None], deltas, 0),
            "mask_targets": jnp.where(positive[:first, None, None], masks, 0),
            "mask_sampled": positive[:first],
        }

    def _roi_align(self, pyramid, boxes: Array, extent: Array, cells: int) -> Array:
        """Pools the features of boxes [B, K, 4]: [B, K, cells, cells, *]."""
        strides = jnp.asarray([round(1 / scale) for scale in _SCALES], jnp.int32)
        sizes = extent[:, None, :] // strides[None, :, None]

        read = functools.partial(
            ops.multilevel_roi_align,
            output_size=(cells, cells),
            spatial_scales=_SCALES,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )
        align = jax.vmap(lambda maps, boxes, sizes: read(maps, boxes, sizes=sizes))
        maps = list(pyramid)
        if jax.default_backend() != "cpu":
            return align(maps, boxes, sizes)
        # A branch that is always taken, which XLA cannot know: it would gather again,
        # in a slow order, inside the weight gradient of the first convolution.
        shape = jax.eval_shape(align, maps, boxes, sizes)
        return jax.lax.cond(
            jnp.any(extent > 0),
            align,
            lambda *_: jnp.zeros(shape.shape, shape.dtype),
            *(maps, boxes, sizes),
        )


def _flat(regions: Array) -> Array:
    """[B, K, ...] -> [B * K, ...]."""
    return regions.reshape(-1, *regions.shape[2:])
