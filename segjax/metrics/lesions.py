"""Detection of lesions: objects that are found if any pixel of them is."""

from typing import Any

import flax.struct
import numpy as np

from segjax.metrics.contingency import Ids, contingency
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch

_SCORES = ("lesion_f1", "lesion_precision", "lesion_recall")


@flax.struct.dataclass
class LesionDetection(RowMetric):
    """Numbers of true lesions that are found and of predicted lesions that are true.

    A true lesion is found if it shares at least `min_pixels` pixels with any predicted
    lesions together; a predicted lesion is true if it shares as many with any true
    ones. So one predicted lesion may find several, and several may find the same, as
    usual for small lesions; `Matching` counts one to one, by IoU.

    `rows.values` has `found` and `truth`, `correct` and `predicted`, each [N].

    Reference:
        The lesion-wise true and false positive rates of Carass et al., Longitudinal
        multiple sclerosis lesion segmentation, NeuroImage 148, 2017, as an F1 score.
    """

    @classmethod
    def from_batch(
        cls,
        predicted: Ids,
        truth: Ids,
        valid: np.ndarray,
        batch: Batch,
        *,
        min_pixels: int = 1,
    ) -> "LesionDetection":
        """Counts one batch on the host.

        Args:
            predicted: [B, H, W] ids, 0 for none.
            truth: [B, H, W] ids, 0 for none.
            valid: [B, H, W] True where a pixel is evaluated.
            batch: Has `index` and `weight`, both [B].
            min_pixels: Least pixels that must be shared, 1 or more.

        Raises:
            ValueError: If a dtype is wrong, an id is negative, or min_pixels is not a
                whole number of at least 1.
        """
        checks.whole_number("LesionDetection", "min_pixels", min_pixels, least=1)
        numbers = []
        for image in zip(predicted, truth, valid, strict=True):
            table = contingency(*image)
            both = (table.truth > 0) & (table.predicted > 0)
            for ids, sizes in (
                (table.truth, table.truth_sizes),
                (table.predicted, table.predicted_sizes),
            ):
                shared = np.zeros(0)
                if both.any():
                    _, place = np.unique(ids[both], return_inverse=True)
                    shared = np.bincount(place, weights=table.pixels[both])
                numbers += [np.count_nonzero(shared >= min_pixels), len(sizes)]
        columns = np.array(numbers, np.int64).reshape(-1, 4).T
        names = ("found", "truth", "correct", "predicted")
        return cls(Rows.from_batch(dict(zip(names, columns, strict=True)), batch))

    def compute(self) -> dict[str, float]:
        """Computes scores in [0, 1] over all lesions, and means over images.

        Returns:
            `lesion_recall`: found of the true lesions. `lesion_precision`: true of the
            predicted ones. `lesion_f1`: their harmonic mean. Without true and
            predicted lesions: NaN; with only one of the two: 0.
            `lesion_f1_per_image` and so on: means over the images that have a score.
        """
        rows = self.rows.without_padding().values
        whole = _scores({k: v.sum(0) for k, v in rows.items()})
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked({k: float(v) for k, v in whole.items()} | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        scores = _scores(self.rows.without_padding().values)
        return {f"{k}_per_image": scores[k] for k in _SCORES}


def _scores(rows: dict[str, Any]) -> dict[str, Any]:
    some = rows["truth"] + rows["predicted"] > 0

    def or_zero(part, whole):
        return np.where(some, np.nan_to_num(ratio(part, whole), nan=0.0), np.nan)

    recall = or_zero(rows["found"], rows["truth"])
    precision = or_zero(rows["correct"], rows["predicted"])
    f1 = or_zero(2 * precision * recall, precision + recall)
    return dict(zip(_SCORES, (f1, precision, recall), strict=True))
