"""Temperature scaling, fitted on validation data."""

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array

_LOW, _HIGH = 1e-2, 1e2
_HALVINGS = 40


def fit_temperature(logits: Array, labels: Array, *, multilabel: bool = False) -> float:
    """Fits the temperature that minimizes the negative log likelihood.

    The likelihood is convex in 1 / T, so its derivative is bisected:

        d/db mean[logsumexp(b z) - b z_label] = mean[E_softmax(b z)[z] - z_label]

    Args:
        logits: float [N, C], of N pixels.
        labels: int [N], or for multilabel models bool [N, C].
        multilabel: Whether each class has a sigmoid of its own.

    Returns:
        T in [0.01, 100]; above 1 where the model is overconfident.

    Raises:
        ValueError: If there are no pixels, or the shapes differ.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2,
        arXiv:1706.04599.
    """
    wanted = np.shape(logits) if multilabel else np.shape(logits)[:1]
    if np.ndim(logits) != 2 or not len(logits) or np.shape(labels) != wanted:
        raise UserError(
            f"fit_temperature needs logits [N, C] of at least one pixel, and labels "
            f"{'[N, C]' if multilabel else '[N]'}, got {list(np.shape(logits))} and "
            f"{list(np.shape(labels))}."
        )
    z = jnp.asarray(logits, jnp.float32)
    slope = _sigmoid_slope if multilabel else _softmax_slope
    low, high = np.log(1 / _HIGH), np.log(1 / _LOW)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(slope(z, jnp.asarray(labels), jnp.float32(np.exp(middle)))) <= 0:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


@jax.jit
def _softmax_slope(z: Array, labels: Array, beta: Array) -> Array:
    expected = jnp.sum(jax.nn.softmax(beta * z) * z, axis=-1)
    own = jnp.take_along_axis(z, labels.astype(jnp.int32)[:, None], axis=-1)[:, 0]
    return jnp.mean(expected - own)


@jax.jit
def _sigmoid_slope(z: Array, labels: Array, beta: Array) -> Array:
    return jnp.mean((jax.nn.sigmoid(beta * z) - labels) * z)
