"""Aggregated Jaccard index of objects."""

import flax.struct
import numpy as np

from segjax.metrics.contingency import Contingency, Ids, contingency
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.typing import Batch


@flax.struct.dataclass
class AggregatedJaccard(RowMetric):
    """Intersection and union summed over the objects of each image.

    Each true object adds its intersection and union with the predicted object of the
    largest IoU, or its own size to the union if none overlaps it. A predicted object
    that matches no true object adds its size to the union.

    `rows.values` has `intersection` and `union`, each [N].

    Reference:
        Kumar et al., A Dataset and a Technique for Generalized Nuclear Segmentation
        for Computational Pathology, IEEE TMI 36(7), 2017, algorithm 1. As in the paper,
        two true objects may match the same predicted object. Of equal IoUs the lower id
        is matched.
    """

    @classmethod
    def from_batch(
        cls, predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
    ) -> "AggregatedJaccard":
        """Sums one batch on the host; arguments as for `Matching.from_batch`."""
        images = zip(predicted, truth, valid, strict=True)
        sums = np.array([_sums(contingency(*image)) for image in images], np.int64)
        sums = sums.reshape(-1, 2)
        return cls(
            Rows.from_batch({"intersection": sums[:, 0], "union": sums[:, 1]}, batch)
        )

    def compute(self) -> dict[str, float]:
        """Intersection over union in [0, 1].

        Returns:
            `aji`: from the sums over all images. `aji_per_image`: mean over images of
            the score of each image. An image without true and predicted objects has no
            score (NaN) and is left out; one with only true or only predicted objects
            scores 0.
        """
        rows = self.rows.without_padding().values
        whole = ratio(rows["intersection"].sum(), rows["union"].sum())
        per_image = self.per_image()["aji_per_image"]
        scores = {"aji": float(whole), "aji_per_image": nanmean(per_image)}
        return self.checked(scores)

    def per_image(self) -> dict[str, np.ndarray]:
        """`aji_per_image` as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        return {"aji_per_image": ratio(rows["intersection"], rows["union"])}


def _sums(table: Contingency) -> tuple[int, int]:
    truth, predicted, shared, union = table.overlaps()
    alone, unused = table.truth_sizes, table.predicted_sizes
    hits = unions = 0
    # By true object, the largest IoU first; pairs are in the order of ids.
    for i in np.lexsort((-shared / union, truth)):
        if alone.pop(int(truth[i]), None) is not None:
            hits, unions = hits + int(shared[i]), unions + int(union[i])
            unused.pop(int(predicted[i]), None)
    return hits, unions + sum(alone.values()) + sum(unused.values())
