"""Panoptic quality."""

import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import numpy as np

from segjax.errors import UserError
from segjax.metrics.common import Masks
from segjax.metrics.contingency import Ids, as_ids, contingency
from segjax.metrics.reduce import mean_over_classes, nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch

_SUMS = ("tp", "fp", "fn", "iou")
_SCORES = ("pq", "sq", "rq")


@flax.struct.dataclass
class Panoptic(RowMetric):
    """True and false positives and false negatives of segments, by image and class.

    A segment is a class and an id. Segments of the same class match if their IoU over
    valid pixels is above 1/2. An unmatched predicted segment with more than half of its
    pixels invalid, or in a crowd of its class, is not a false positive.

    `rows.values` has `tp`, `fp`, `fn` and `iou` (summed over `tp`), each [N, C].

    Attributes:
        classes: C names.
        things: Names of the classes that are things; empty if it is not known.

    Reference:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, arXiv:1801.00868, section 4,
        and the rules for void pixels and crowds of its section 4.3, as in the authors'
        code.
    """

    classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    things: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def from_batch(
        cls,
        predicted: tuple[Ids, Ids],
        truth: tuple[Ids, Ids],
        valid: np.ndarray,
        batch: Batch,
        *,
        classes: tuple[str, ...],
        things: Sequence[str] = (),
        crowd: Masks | None = None,
    ) -> "Panoptic":
        """Matches one batch on the host.

        Args:
            predicted: Class ids in [0, C), and segment ids of at least 0 within each
                class (all 0 for stuff), each [B, H, W].
            truth: Likewise; ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated.
            batch: Has `index` and `weight`, both [B].
            classes: C names.
            things: Those of things, for separate means; other classes are stuff.
            crowd: [B, H, W] True on the true segments that are crowds of objects. They
                match no prediction and are no false negatives. None: there are none.

        Raises:
            ValueError: If a dtype is wrong, an id is negative, or a thing is no class.
        """
        if unknown := sorted(set(things) - set(classes)):
            raise UserError(
                f"things needs names from classes, got {', '.join(unknown)} besides "
                f"{', '.join(classes)}. Correct them."
            )
        valid = np.asarray(checks.as_mask("valid", valid))
        values = {k: np.zeros((len(valid), len(classes))) for k in _SUMS}
        if crowd is None:
            crowd = np.zeros_like(valid)
        crowd = valid & np.asarray(checks.as_mask("crowd", crowd))
        for i, where in enumerate(valid):
            a, b = ([x[i] for x in side] for side in (predicted, truth))
            image = _image(a, b, where, crowd[i], len(classes))
            for name, sums in zip(_SUMS, image, strict=True):
                values[name][i] = sums
        return cls(Rows.from_batch(values, batch), classes, tuple(things))

    @classmethod
    def from_objects(
        cls, predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
    ) -> "Panoptic":
        """Matches objects of one class; arguments as for `Matching.from_batch`."""
        # Class 1 is the background, which is not scored because it has no name.
        a, b = (((x == 0).astype(np.int32), x) for x in (predicted, truth))
        return cls.from_batch(a, b, valid, batch, classes=("object",))

    def compute(self) -> dict[str, float]:
        """Computes scores in [0, 1] over all segments, and means over images.

            rq = TP / (TP + FP / 2 + FN / 2), sq = mean IoU of TP, pq = sq * rq

        Returns:
            `pq`, `sq`, `rq`: means over classes in truth or prediction.
            `pq/<name>` and so on: of each class.
            `pq_things` and `pq_stuff` and so on, if `things` is given: means over the
            classes of each.
            `pq_per_image` and so on: means over images of the mean over the classes in
            that image.
            A class absent from truth and prediction has no score (NaN). A class without
            matches scores 0 in all three, so that the means of sq and pq are over the
            same classes. (The reference implementation does the same.)
        """
        rows = self.rows.without_padding().values
        whole = {k: v.sum(0) for k, v in rows.items() if k != "iou"}
        whole["iou"] = np.array([math.fsum(column) for column in rows["iou"].T])
        scores = _scores(**whole)
        found = {name: nanmean(scores[name]) for name in _SCORES}
        for name in _SCORES:
            for label, value in zip(self.classes, scores[name], strict=True):
                found[f"{name}/{label}"] = float(value)
            if self.things:
                thing = np.isin(self.classes, self.things)
                found[f"{name}_things"] = nanmean(scores[name][thing])
                found[f"{name}_stuff"] = nanmean(scores[name][~thing])
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(found | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        scores = _scores(**self.rows.without_padding().values)
        return {f"{k}_per_image": mean_over_classes(scores[k]) for k in _SCORES}


def _scores(tp: Any, fp: Any, fn: Any, iou: Any) -> dict[str, Any]:
    weight = tp + fp / 2 + fn / 2
    found = np.nan_to_num(ratio(iou, tp), nan=0.0)
    return {
        "pq": ratio(iou, weight),
        "sq": np.where(weight > 0, found, np.nan),
        "rq": ratio(tp, weight),
    }


def _image(predicted, truth, valid, crowd, num_classes: int):
    """tp, fp, fn and summed IoU of one image, each [C]."""
    p, p_classes = _segments("predicted", predicted, np.ones_like(valid))
    t, t_classes = _segments("truth", truth, valid & ~crowd)
    table = contingency(p, t, np.ones_like(valid))
    ignored = _sizes(p[~valid])
    # A crowd of another class does not excuse a segment.
    own = np.asarray(truth[0]) == np.concatenate([[-1], p_classes])[p]
    excused = _sizes(p[~valid | (crowd & own)])
    unmatched_truth, unmatched_predicted = table.truth_sizes, table.predicted_sizes
    total, found = np.zeros(num_classes), []
    for t, p, shared, union in zip(
        *(x.tolist() for x in table.overlaps()), strict=True
    ):
        c, iou = t_classes[t - 1], shared / (union - ignored.get(p, 0))
        if c == p_classes[p - 1] < num_classes and iou > 0.5:
            total[c] += iou
            found.append(t)
            del unmatched_truth[t], unmatched_predicted[p]
    unmatched_predicted = [
        p for p, size in unmatched_predicted.items() if 2 * excused.get(p, 0) <= size
    ]

    def count(classes, segments):
        c = classes[np.array(list(segments), np.int64) - 1]
        return np.bincount(c[c < num_classes], minlength=num_classes)

    return (
        count(t_classes, found),
        count(p_classes, unmatched_predicted),
        count(t_classes, unmatched_truth),
        total,
    )


def _sizes(ids: np.ndarray) -> dict[int, int]:
    found, pixels = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), pixels.tolist(), strict=True))


def _segments(name, side, where) -> tuple[np.ndarray, np.ndarray]:
    """Numbers segments from 1: [H, W], 0 outside `where`; and the class of each."""
    classes, ids = map(np.asarray, side)
    numbers = np.zeros(where.shape, np.int64)
    sides = as_ids(f"{name} classes", classes[where]), as_ids(name, ids[where])
    (class_ids, c), (segment_ids, s) = (
        np.unique(x, return_inverse=True) for x in sides
    )
    # Numbered from 0, because class and id in one number overflow for large ids.
    base = max(len(segment_ids), 1)
    pairs, place = np.unique(c * base + s, return_inverse=True)
    numbers[where] = place + 1
    return numbers, class_ids[pairs // base]
