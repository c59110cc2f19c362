"""A weighted mean as its two sums, so that any batching gives the same figure."""

from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from segjax.typing import PerExample


@flax.struct.dataclass
class Mean:
    """Sums of one number per example.

    Attributes:
        total: Scalar, the sum of weight * value. float32 on the device; float64
            once merged.
        weight: Scalar, the sum of weights.
    """

    total: Any
    weight: Any

    @classmethod
    def from_batch(cls, values: PerExample, weight: PerExample) -> "Mean":
        """Sums one batch; a value whose weight is 0 is never read, be it NaN."""
        values = jnp.where(weight > 0, jnp.asarray(values, jnp.float32), 0)
        return cls(jnp.sum(values * weight), jnp.sum(weight))

    def merge(self, other: "Mean") -> "Mean":
        """Adds two sums on the host, in float64."""
        return Mean(
            np.asarray(self.total, np.float64) + np.asarray(other.total, np.float64),
            np.asarray(self.weight, np.float64) + np.asarray(other.weight, np.float64),
        )

    def compute(self) -> dict[str, float]:
        """`mean`: over examples; NaN where their weights sum to 0."""
        weight = float(self.weight)
        return {"mean": float(self.total) / weight if weight else float("nan")}
