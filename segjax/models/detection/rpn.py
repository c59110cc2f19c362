"""Region proposal network.

Ren et al., Faster R-CNN, 2015, arXiv:1506.01497, on the levels of a feature pyramid
(Lin et al., 2017, arXiv:1612.03144, section 4.1), as in torchvision's
`RegionProposalNetwork`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers, region
from segjax.models.detection import sampling
from segjax.models.detection.anchors import Anchors, grid_anchors
from segjax.typing import Array, Key

UNIT = (1.0, 1.0, 1.0, 1.0)
"""Weights of the deltas from anchors."""

_init = nn.initializers.normal(0.01)


class RPN(nn.Module):
    """The network, selection of proposals, and sampling of training targets.

    Arguments that end in `train` apply in training, those in `test` otherwise.

    Attributes:
        convs: 3x3 convolutions before the two predictions.
        anchor_sizes: Square roots of the anchors' areas of each level, in pixels.
        aspect_ratios: Height over width of anchors.
        pre_nms_top_n_train: Number of best anchors kept on each level before NMS.
        pre_nms_top_n_test: The same, outside training.
        post_nms_top_n_train: Number of proposals kept after NMS, over all levels.
        post_nms_top_n_test: The same, outside training.
        nms_threshold: IoU above which the worse of two proposals of a level is
            suppressed.
        score_threshold: Smallest probability of a proposal.
        fg_iou_thresh: Smallest IoU of a positive anchor; the best anchors of an object
            are always positive.
        bg_iou_thresh: IoU below which an anchor is negative.
        batch_size_per_image: Anchors sampled for the losses.
        positive_fraction: Largest fraction of positive anchors among these.
    """

    convs: int = 1
    anchor_sizes: Sequence[Sequence[int | float]] = (
        (32,),
        (64,),
        (128,),
        (256,),
        (512,),
    )
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    pre_nms_top_n_train: int = 2000
    pre_nms_top_n_test: int = 1000
    post_nms_top_n_train: int = 2000
    post_nms_top_n_test: int = 1000
    nms_threshold: float = 0.7
    score_threshold: float = 0.0
    fg_iou_thresh: float = 0.7
    bg_iou_thresh: float = 0.3
    batch_size_per_image: int = 256
    positive_fraction: float = 0.5

    @nn.compact
    def __call__(
        self, pyramid: Sequence[Array], pixel_masks: Sequence[Array | None]
    ) -> tuple[Array, Array]:
        """Predicts the objectness and the box deltas of all anchors.

        Args:
            pyramid: Maps [B, H, W, C], finest first.
            pixel_masks: For each map bool [B, H, W, 1], False in padding, or None.

        Returns:
            Logits [B, A] and deltas [B, A, 4], float32, in the order of `anchors`.
        """
        features = pyramid[0].shape[-1]
        cell = self._anchors_per_cell
        convs = [
            layers.Conv(features, kernel_init=_init, name=f"conv{i}")
            for i in range(self.convs)
        ]
        score = layers.Conv(cell, 1, kernel_init=_init, name="score")
        delta = layers.Conv(4 * cell, 1, kernel_init=_init, name="delta")
        logits, deltas = [], []
        for x, inside in zip(pyramid, pixel_masks, strict=True):
            for conv in convs:
                x = nn.relu(conv(region.zero_outside(x, inside)))
            logits.append(score(x).reshape(x.shape[0], -1))
            deltas.append(delta(x).reshape(x.shape[0], -1, 4))
        return (
            jnp.concatenate(logits, axis=1).astype(jnp.float32),
            jnp.concatenate(deltas, axis=1).astype(jnp.float32),
        )

    @property
    def _anchors_per_cell(self) -> int:
        per_level = {len(group) for group in self.anchor_sizes}
        if len(per_level) != 1:
            raise UserError(
                f"RPN needs the same number of anchor sizes on every level, got "
                f"{self.anchor_sizes}. Try one per level, such as ((32,), (64,))."
            )
        return per_level.pop() * len(self.aspect_ratios)

    def anchors(self, pyramid: Sequence[Array], extent: Array) -> Anchors:
        """Computes the anchors of all cells of all levels.

        Args:
            pyramid: Feature maps; only their shapes are used.
            extent: int32 [B, 2] (height, width) of the images, rounded up to
                multiples of 32.
        """
        shapes = [x.shape[1:3] for x in pyramid]
        return grid_anchors(shapes, extent, self.anchor_sizes, self.aspect_ratios)

    def proposals(
        self,
        objectness: Array,
        deltas: Array,
        anchors: Anchors,
        size: Array,
        *,
        train: bool,
    ) -> tuple[Array, Array]:
        """Selects the best boxes of each image by NMS.

        Args:
            objectness: [B, A] logits.
            deltas: [B, A, 4].
            anchors: The anchors.
            size: int32 [B, 2], to which boxes are clipped.
            train: True uses the numbers of proposals for training.

        Returns:
            boxes [B, K, 4], best first, and object_mask [B, K]. No gradient flows
            through.
        """
        before, after = (
            (self.pre_nms_top_n_train, self.post_nms_top_n_train)
            if train
            else (self.pre_nms_top_n_test, self.post_nms_top_n_test)
        )
        objectness, deltas = jax.lax.stop_gradient((objectness, deltas))
        scores = jnp.where(anchors.valid, objectness, -jnp.inf)

        def one_image(scores, deltas, anchors_, size):
            levels = _top_n_per_level(scores, anchors.num_anchors, before)
            boxes = ops.decode_boxes(deltas[levels], anchors_[levels], weights=UNIT)
            boxes = ops.clip_boxes(boxes, size)
            scores = jax.nn.sigmoid(scores[levels])  # 0 for padding.
            return self._suppress(boxes, scores, levels >= 0, after)

        return jax.vmap(one_image)(scores, deltas, anchors.boxes, size)

    def _suppress(
        self, boxes, scores, proposal_mask, count: int
    ) -> tuple[Array, Array]:
        """Applies NMS to each level [L, K], then selects the best of all levels."""
        side = boxes[..., 2:] - boxes[..., :2]
        valid = proposal_mask & jnp.all(side >= 1e-3, axis=-1)
        valid &= (scores >= self.score_threshold) & (scores > 0)

        def one_level(boxes, scores, valid):
            index, object_mask = ops.nms(
                boxes,
                scores,
                valid,
                iou_threshold=self.nms_threshold,
                max_outputs=min(count, len(scores)),
            )
            return boxes[index], jnp.where(object_mask, scores[index], -1)

        boxes, scores = jax.vmap(one_level)(boxes, scores, valid)
        scores = scores.ravel()
        best, index = jax.lax.top_k(scores, min(count, len(scores)))
        object_mask = best >= 0
        return jnp.where(
            object_mask[:, None], boxes.reshape(-1, 4)[index], 0
        ), object_mask

    def targets(
        self, key: Key, anchors: Anchors, boxes: Array, object_mask: Array
    ) -> dict[str, Array]:
        """Samples anchors for the losses, and computes their targets.

        Args:
            key: A key for each image, [B].
            anchors: The anchors.
            boxes: [B, N, 4] of the objects.
            object_mask: bool [B, N].

        Returns:
            The fields of `MaskRCNNTraining` that begin with `anchor_`, except
            `anchor_deltas`.
        """

        def one_image(key, anchors_, valid, boxes, object_mask):
            matches = ops.match_every_object(
                ops.box_iou(boxes, anchors_),
                object_mask,
                valid,
                high_threshold=self.fg_iou_thresh,
                low_threshold=self.bg_iou_thresh,
            )
            positive, negative = ops.sample_balanced_masks(
                sampling.ranks(key, anchors.ids),
                matches.positive,
                matches.negative,
                num_samples=self.batch_size_per_image,
                positive_fraction=self.positive_fraction,
            )
            deltas = ops.encode_boxes(boxes[matches.index], anchors_, weights=UNIT)
            return {
                "anchor_delta_targets": jnp.where(positive[:, None], deltas, 0),
                "anchor_positive": positive,
                "anchor_negative": negative,
            }

        return jax.vmap(one_image)(
            key, anchors.boxes, anchors.valid, boxes, object_mask
        )


def _top_n_per_level(scores: Array, num_anchors: Sequence[int], number: int) -> Array:
    """Indices [L, K] of the best scores of each level, best first; padded with -1."""
    known = all(isinstance(count, int) for count in num_anchors)
    widest = min(number, max(num_anchors)) if known else number
    result, start = [], 0
    for count in num_anchors:
        level = scores[start : start + count]
        if not known:  # A symbolic count may be less than `number`.
            level = jnp.concatenate([level, jnp.full(number, -jnp.inf, level.dtype)])
        best, index = jax.lax.top_k(level, min(number, count) if known else number)
        index = jnp.where(jnp.isfinite(best), index + start, -1)
        padding = jnp.full(widest - len(index), -1, index.dtype)
        result.append(jnp.concatenate([index, padding]))
        start += count
    return jnp.stack(result)
