"""Metrics that store one row per image, so that images can be resampled."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import numpy as np

from segjax.errors import UserError
from segjax.metrics.reduce import nanmean
from segjax.typing import Batch

WRONG = "wrong_pixels"
"""The entry of a batch in which a metric of logits hands on what it found."""


def check_wrong(scores: dict[str, float], wrong: Mapping[str, Any]) -> dict[str, float]:
    """The scores; all NaN if `wrong` counts NaN in logits, an error for labels.

    Args:
        scores: Of a data set.
        wrong: Counts by name, as `common.wrong_pixels` has them; may be empty.
    """
    labels = int(np.asarray(wrong.get("labels", 0)).sum(dtype=np.int64))
    if labels:
        raise UserError(
            f"The metric needs class ids in [0, C) where valid, got others at {labels} "
            f"pixels. Set `valid` to False at pixels to ignore, or add the classes."
        )
    if np.asarray(wrong.get("logits", 0)).any():
        return dict.fromkeys(scores, math.nan)
    return scores


def add_wrong(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Adds counts by name, in int64 on the host."""
    return {
        k: np.asarray(a.get(k, 0), np.int64) + np.asarray(b.get(k, 0), np.int64)
        for k in {**a, **b}
    }


def summed_wrong(batch: Batch) -> dict[str, Any]:
    """The counts that `common.masked_labels` found, summed over the batch."""
    return {k: x.sum() for k, x in batch[WRONG].items()}


@flax.struct.dataclass
class Rows:
    """Named arrays whose first axis is images.

    Attributes:
        values: Arrays of [N, ...].
        index: [N] position of each image in its split, `batch["index"]`.
        weight: [N]; 0 for the padding of a short batch, whose values are ignored.
        wrong: What `common.wrong_pixels` found, by name [N]; empty if not looked for.
    """

    values: Any
    index: Any
    weight: Any
    wrong: Any = flax.struct.field(default_factory=dict)

    @classmethod
    def from_batch(cls, values: Mapping[str, Any], batch: Batch) -> "Rows":
        """Makes the rows of one batch, which has `index` and `weight`."""
        wrong = dict(batch.get(WRONG, {}))
        return cls(dict(values), batch["index"], batch["weight"], wrong)

    def without_padding(self) -> "Rows":
        """Returns the rows of positive weight, sorted by `index`, as NumPy arrays."""
        kept = np.flatnonzero(np.asarray(self.weight) > 0)
        index = np.asarray(self.index)[kept]
        order = np.argsort(index, kind="stable")
        values, wrong = (
            {k: np.asarray(v)[kept][order] for k, v in x.items()}
            for x in (self.values, self.wrong)
        )
        weight = np.asarray(self.weight)[kept][order]
        return Rows(values, index[order], weight, wrong)

    def merge(self, other: "Rows") -> "Rows":
        """Concatenates the rows of both, on the host."""
        a, b = self.without_padding(), other.without_padding()
        values, wrong = (
            {k: np.concatenate([v, y[k]]) for k, v in x.items()}
            for x, y in ((a.values, b.values), (a.wrong, b.wrong))
        )
        index = np.concatenate([a.index, b.index])
        return Rows(values, index, np.concatenate([a.weight, b.weight]), wrong)


@flax.struct.dataclass
class RowMetric:
    """Base class of metrics that consist of rows; subclasses add `compute`.

    Attributes:
        rows: Sums or scores of each image.
    """

    rows: Any

    @property
    def num_images(self) -> int:
        """Number of images, without padding."""
        return len(self.rows.without_padding().index)

    def merge(self, other: Any) -> Any:
        """Joins the images of both; scores do not depend on the order.

        Raises:
            ValueError: If the two differ in type or settings, such as classes.
        """
        mine, others = _settings(self), _settings(other)
        if type(self) is not type(other) or mine != others:
            raise UserError(
                f"merge needs two {type(self).__name__} of {mine}, got "
                f"{type(other).__name__} of {others}. Evaluate both with the same "
                f"options."
            )
        return dataclasses.replace(self, rows=self.rows.merge(other.rows))

    def take(self, positions: Sequence[int] | np.ndarray) -> Any:
        """Selects images, with repetitions.

        Args:
            positions: Positions among the images without padding, in the order of
                `index`.
        """
        rows, positions = self.rows.without_padding(), np.asarray(positions)
        values, wrong = (
            {k: v[positions] for k, v in x.items()} for x in (rows.values, rows.wrong)
        )
        index = np.arange(len(positions))
        return dataclasses.replace(
            self, rows=Rows(values, index, rows.weight[positions], wrong)
        )

    def checked(self, scores: dict[str, float]) -> dict[str, float]:
        """The scores; NaN if logits were NaN, which no score of the others shows.

        Raises:
            ValueError: If there were labels out of range.
        """
        return check_wrong(scores, self.rows.without_padding().wrong)


def _settings(metric: Any) -> dict[str, Any]:
    return {
        f.name: getattr(metric, f.name)
        for f in dataclasses.fields(metric)
        if not f.metadata.get("pytree_node", True)
    }


@flax.struct.dataclass
class PerImage(RowMetric):
    """Scores of each image; NaN where an image has no score.

    `rows.values` has arrays [N] by key; keys contain `per_image`.
    """

    @classmethod
    def from_batch(cls, scores: Mapping[str, Any], batch: Batch) -> "PerImage":
        """Stores the scores of one batch, on the device or on the host.

        Args:
            scores: Arrays [B] by key.
            batch: Has `index` and `weight`, both [B].
        """
        return cls(Rows.from_batch(scores, batch))

    def compute(self) -> dict[str, float]:
        """Computes the mean over the images that have the score; NaN if none has."""
        return self.checked({k: nanmean(v) for k, v in self.per_image().items()})

    def per_image(self) -> dict[str, np.ndarray]:
        """Each score as [N] float64, images in the order of `index`."""
        values = self.rows.without_padding().values
        return {k: np.asarray(v, np.float64) for k, v in values.items()}
