"""One row of numbers an image, so that scores can be resampled over images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import numpy as np

from segjax.metrics.reduce import nanmean
from segjax.typing import Batch


@flax.struct.dataclass
class Rows:
    """Named arrays whose first axis is images.

    Attributes:
        values: Arrays of [N, ...].
        index: [N]; each image's place in its split, `batch["index"]`.
        weight: [N]; 0 for the padding of a short batch, whose values are never read.
    """

    values: Any
    index: Any
    weight: Any

    @classmethod
    def from_batch(cls, values: Mapping[str, Any], batch: Batch) -> "Rows":
        """Rows of one batch, which has `index` and `weight`."""
        return cls(dict(values), batch["index"], batch["weight"])

    def without_padding(self) -> "Rows":
        """Rows that count, in the order of `index`, as NumPy arrays."""
        kept = np.flatnonzero(np.asarray(self.weight) > 0)
        index = np.asarray(self.index)[kept]
        order = np.argsort(index, kind="stable")
        return Rows(
            {k: np.asarray(v)[kept][order] for k, v in self.values.items()},
            index[order],
            np.asarray(self.weight)[kept][order],
        )

    def merge(self, other: "Rows") -> "Rows":
        """The rows of both, on the host."""
        a, b = self.without_padding(), other.without_padding()
        values = {k: np.concatenate([v, b.values[k]]) for k, v in a.values.items()}
        index = np.concatenate([a.index, b.index])
        return Rows(values, index, np.concatenate([a.weight, b.weight]))


@flax.struct.dataclass
class RowMetric:
    """A metric made of rows: a subclass adds names and `compute`.

    Attributes:
        rows: What is known of each image.
    """

    rows: Any

    @property
    def num_images(self) -> int:
        """Images that count."""
        return len(self.rows.without_padding().index)

    def merge(self, other: Any) -> Any:
        """The images of both; any order gives the same scores.

        Raises:
            ValueError: If the two are not of one kind, such as of other classes.
        """
        mine, others = _settings(self), _settings(other)
        if type(self) is not type(other) or mine != others:
            raise ValueError(
                f"merge needs two {type(self).__name__} of {mine}, got "
                f"{type(other).__name__} of {others}. Evaluate both in one way."
            )
        return dataclasses.replace(self, rows=self.rows.merge(other.rows))

    def take(self, positions: Sequence[int] | np.ndarray) -> Any:
        """The metric of some images, each as often as it is named.

        Args:
            positions: Places among the images that count, in the order of `index`.
        """
        rows, positions = self.rows.without_padding(), np.asarray(positions)
        values = {k: v[positions] for k, v in rows.values.items()}
        index = np.arange(len(positions))
        return dataclasses.replace(
            self, rows=Rows(values, index, rows.weight[positions])
        )


def _settings(metric: Any) -> dict[str, Any]:
    return {
        f.name: getattr(metric, f.name)
        for f in dataclasses.fields(metric)
        if not f.metadata.get("pytree_node", True)
    }


@flax.struct.dataclass
class PerImage(RowMetric):
    """Finished scores of each image; NaN where an image has none.

    `rows.values` is [N] arrays by key; each key says that it is a mean over images.
    """

    @classmethod
    def from_batch(cls, scores: Mapping[str, Any], batch: Batch) -> "PerImage":
        """Keeps one batch's scores, on the device or on the host.

        Args:
            scores: Arrays of [B] by key.
            batch: Has `index` and `weight`, both [B].
        """
        return cls(Rows.from_batch(scores, batch))

    def compute(self) -> dict[str, float]:
        """Mean over the images that have the score; NaN where none has."""
        return {k: nanmean(v) for k, v in self.per_image().items()}

    def per_image(self) -> dict[str, np.ndarray]:
        """Each score as [N] float64, images in the order of `index`."""
        values = self.rows.without_padding().values
        return {k: np.asarray(v, np.float64) for k, v in values.items()}
