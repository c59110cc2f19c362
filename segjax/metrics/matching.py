"""True positives, false positives and false negatives of objects at IoU thresholds."""

from typing import Any

import flax.struct
import numpy as np

from segjax.metrics.contingency import Ids, contingency
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.typing import Batch

THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""0.50, 0.55, ... 0.95, each the nearest float."""
REPORTED_THRESHOLDS = (0.5, 0.75)
"""Thresholds reported by `Matching.compute`; `Matching.table` has all."""


@flax.struct.dataclass
class Matching(RowMetric):
    """Numbers of objects in each image, and of true positives at each threshold.

    A true object is detected if a predicted object has an IoU with it above the
    threshold. At thresholds of 0.5 and more there is at most one such object, so no
    assignment is needed. Invalid pixels belong to no object.

    `rows.values` has `tp` [N, 10], and `predicted` and `truth` [N].
    """

    @classmethod
    def from_batch(
        cls, predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
    ) -> "Matching":
        """Matches one batch on the host.

        Args:
            predicted: [B, H, W] ids, 0 for none.
            truth: [B, H, W] ids, 0 for none.
            valid: [B, H, W] True where a pixel is evaluated.
            batch: Has `index` and `weight`, both [B].
        """
        tp, num_objects = [], []
        for image in zip(predicted, truth, valid, strict=True):
            table = contingency(*image)
            _, _, shared, union = table.overlaps()
            # A quotient of integers rounds to the same float as the threshold, so an
            # IoU of exactly 11 / 20 is not above 0.55.
            iou = shared / union
            tp.append([np.count_nonzero(iou > t) for t in THRESHOLDS])
            num_objects.append([len(table.predicted_sizes), len(table.truth_sizes)])
        num_objects = np.array(num_objects, np.int64).reshape(-1, 2)
        values = {
            "tp": np.array(tp, np.int64).reshape(-1, len(THRESHOLDS)),
            "predicted": num_objects[:, 0],
            "truth": num_objects[:, 1],
        }
        return cls(Rows.from_batch(values, batch))

    def table(self) -> dict[str, Any]:
        """Computes all scores over the objects of the data set, each [10] by threshold.

        Returns:
            `tp`, `fp`, `fn`; `precision`, `recall`, `f1`; `dsb2018_score`, which is
            TP / (TP + FP + FN). Scores are NaN without true and predicted objects, and
            0 if only one of the two has objects.
        """
        rows = self.rows.without_padding().values
        return _scores(**{k: v.sum(0) for k, v in rows.items()})

    def compute(self) -> dict[str, float]:
        """Computes scores over objects, and means over images.

        Returns:
            `tp@0.50`, and `fp`, `fn`, `precision`, `recall`, `f1`, `dsb2018_score`
            likewise, at 0.50 and 0.75: over all objects of the data set.
            `mean_dsb2018_score`: mean of these over thresholds from 0.50 to 0.95.
            `dsb2018_score_per_image@0.50`, `f1_per_image@0.50` and so on, and
            `mean_dsb2018_score_per_image` (the score of the 2018 Data Science Bowl):
            means over images of the score of each image. An image without true and
            predicted objects has no score and is left out; one with only true or only
            predicted objects scores 0.
        """
        whole = self.table()
        scores = {"mean_dsb2018_score": nanmean(whole["dsb2018_score"])}
        for threshold in REPORTED_THRESHOLDS:
            place = THRESHOLDS.index(threshold)
            for name, values in whole.items():
                scores[f"{name}@{threshold:.2f}"] = float(values[place])
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        scores = _scores(**self.rows.without_padding().values)
        mean = scores["dsb2018_score"].mean(-1)
        shown = {"mean_dsb2018_score_per_image": mean}
        for threshold in REPORTED_THRESHOLDS:
            place = THRESHOLDS.index(threshold)
            for name in ("precision", "recall", "f1", "dsb2018_score"):
                values = scores[name][:, place]
                shown[f"{name}_per_image@{threshold:.2f}"] = values
        return shown


def _scores(tp: Any, predicted: Any, truth: Any) -> dict[str, Any]:
    """[..., 10] each."""
    predicted, truth = np.asarray(predicted)[..., None], np.asarray(truth)[..., None]
    fp, fn = predicted - tp, truth - tp
    some = tp + fp + fn > 0

    def or_zero(part, whole):
        return np.where(some, np.nan_to_num(ratio(part, whole), nan=0.0), np.nan)

    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": or_zero(tp, tp + fp),
        "recall": or_zero(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "dsb2018_score": ratio(tp, tp + fp + fn),
    }
