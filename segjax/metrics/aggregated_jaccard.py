"""Aggregated Jaccard index of objects."""

import flax.struct
import numpy as np

from segjax.metrics.contingency import Contingency, Ids, contingency
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.typing import Batch


@flax.struct.dataclass
class AggregatedJaccard(RowMetric):
    """Overlap and union summed over each image's objects.

    Each true object adds its overlap and union with the predicted one of the largest
    IoU, or its own size where none touches it; a predicted object that was nobody's
    choice adds its size to the union.

    `rows.values` has `intersection` and `union`, each [N].

    Reference:
        Kumar et al., A Dataset and a Technique for Generalized Nuclear Segmentation
        for Computational Pathology, IEEE TMI 36(7), 2017, algorithm 1. As there, two
        true objects may choose one predicted object. Between equal IoUs the lower id
        is chosen.
    """

    @classmethod
    def from_batch(
        cls, predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
    ) -> "AggregatedJaccard":
        """Sums one batch on the host; arguments as for `Matching.from_batch`."""
        images = zip(predicted, truth, valid, strict=True)
        sums = np.array([_sums(contingency(*image)) for image in images], np.int64)
        sums = sums.reshape(-1, 2)
        return cls(Rows.from_batch({"intersection": sums[:, 0], "union": sums[:, 1]}, batch))

    def compute(self) -> dict[str, float]:
        """Overlap over union in [0, 1].

        Returns:
            `aji`: of the sums over all images. `aji_per_image`: mean over images of
            each image's own. An image with no object on either side has no score
            (NaN) and is left out; one with objects on one side only scores 0.
        """
        rows = self.rows.without_padding().values
        whole = ratio(rows["intersection"].sum(), rows["union"].sum())
        per_image = self.per_image()["aji_per_image"]
        return {"aji": float(whole), "aji_per_image": nanmean(per_image)}

    def per_image(self) -> dict[str, np.ndarray]:
        """`aji_per_image` as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        return {"aji_per_image": ratio(rows["intersection"], rows["union"])}


def _sums(table: Contingency) -> tuple[int, int]:
    truth, predicted, shared, union = table.overlaps()
    alone, unused = table.truth_sizes, table.predicted_sizes
    hits = unions = 0
    # By truth, the largest IoU first; pairs come in the order of ids.
    for i in np.lexsort((-shared / union, truth)):
        if alone.pop(int(truth[i]), None) is not None:
            hits, unions = hits + int(shared[i]), unions + int(union[i])
            unused.pop(int(predicted[i]), None)
    return hits, unions + sum(alone.values()) + sum(unused.values())
