"""A weighted mean over examples, independent of the batching."""

from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from segjax.typing import PerExample


@flax.struct.dataclass
class Mean:
    """Weighted sum of one number per example, and the sum of weights.

    Attributes:
        total: Scalar, the sum of weight * value. float32 on the device; float64
            once merged.
        weight: Scalar, the sum of weights.
    """

    total: Any
    weight: Any

    @classmethod
    def from_batch(cls, values: PerExample, weight: PerExample) -> "Mean":
        """Sums one batch; values of weight 0 are ignored, even NaN."""
        values = jnp.where(weight > 0, jnp.asarray(values, jnp.float32), 0)
        return cls(jnp.sum(values * weight), jnp.sum(weight))

    def merge(self, other: "Mean") -> "Mean":
        """Adds the sums of two metrics on the host, in float64."""
        return Mean(
            np.asarray(self.total, np.float64) + np.asarray(other.total, np.float64),
            np.asarray(self.weight, np.float64) + np.asarray(other.weight, np.float64),
        )

    def compute(self) -> dict[str, float]:
        """Computes `mean`, over examples; NaN if the weights sum to 0."""
        weight = float(self.weight)
        return {"mean": float(self.total) / weight if weight else float("nan")}
