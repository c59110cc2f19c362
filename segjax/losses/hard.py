"""Cross-entropy over the hardest pixels of each image."""

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.losses.common import of_label, prepare
from segjax.typing import Array, Labels, Logits, PerExample, Valid


def top_k_cross_entropy(
    logits: Logits, labels: Labels, valid: Valid, *, fraction: float = 0.1
) -> PerExample:
    """Mean cross-entropy of the pixels with the largest loss.

    Averages the k = max(1, round(fraction * n)) largest losses of the n valid pixels of
    an image. Pixels that tie for the last places share them evenly.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        fraction: Fraction of the valid pixels of an image, in (0, 1]; 1 is
            cross-entropy.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If fraction is out of range.

    Reference:
        Wu et al., Bridging Category-level and Instance-level Semantic Image
        Segmentation, 2016, section 3.2 (online bootstrapping). arXiv:1605.06885.
        The paper has a fixed k; nnU-Net takes a fraction of each image, as here.
    """
    _check_fraction("top_k_cross_entropy", "fraction", fraction)
    cost = _costs(logits, labels, valid)
    k, last = _hard_threshold(cost, fraction)
    above = jnp.sum(cost > last[:, None], axis=-1)
    ties = jnp.sum(cost == last[:, None], axis=-1)
    share = ((k - above) / jnp.maximum(ties, 1)).astype(cost.dtype)
    weight = jnp.where(cost > last[:, None], 1, share[:, None])
    weight = jnp.where(cost >= last[:, None], weight, 0)
    return jnp.sum(weight * jnp.maximum(cost, 0), axis=-1) / k.astype(cost.dtype)


def ohem_cross_entropy(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    threshold: float = 0.7,
    min_fraction: float = 1 / 16,
) -> PerExample:
    """Mean cross-entropy of the pixels whose label has a low probability.

    Averages the pixels whose label has probability `threshold` or less, but at least
    the hardest max(1, round(min_fraction * n)) of an image's n valid pixels, including
    all that tie for the last place.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        threshold: Probability, in (0, 1].
        min_fraction: Fraction of the valid pixels of an image, in (0, 1].

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If threshold or min_fraction is out of range.

    Reference:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard
        Example Mining, 2016. arXiv:1604.03540. The paper selects boxes; this is the
        form for pixels that is common in segmentation (mmsegmentation's
        OHEMPixelSampler). That one selects at least a fixed number of pixels from the
        batch; here each image has its own selection, so images stay independent.
    """
    _check_fraction("ohem_cross_entropy", "threshold", threshold)
    _check_fraction("ohem_cross_entropy", "min_fraction", min_fraction)
    cost = _costs(logits, labels, valid)
    _, last = _hard_threshold(cost, min_fraction)
    bar = jnp.minimum(last, -jnp.log(jnp.asarray(threshold, cost.dtype)))
    # The -1 of invalid pixels is below any bar; NaN is not, and comes out.
    easy = cost < jnp.maximum(bar, 0)[:, None]
    count = jnp.maximum(jnp.sum(~easy, axis=-1), 1)
    return jnp.sum(jnp.where(easy, 0, cost), axis=-1) / count


def _costs(logits: Logits, labels: Labels, valid: Valid) -> jax.Array:
    """[B, H * W] cross-entropy, at least 0; -1 where not valid."""
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    cost = jnp.where(pixel_mask > 0, -of_label(jax.nn.log_softmax(logits), labels), -1)
    # Not -1, which is undefined for an empty batch.
    return cost.reshape(cost.shape[0], cost.shape[1] * cost.shape[2])


def _hard_threshold(cost: jax.Array, fraction: float) -> tuple[jax.Array, Array]:
    """Number of pixels selected in each image, and the smallest loss among them."""
    cost = jax.lax.stop_gradient(cost)
    num_valid = jnp.sum(cost >= 0, axis=-1)
    k = jnp.maximum(jnp.round(fraction * num_valid), 1).astype(jnp.int32)
    return k, ops.kth_largest(cost, k)


def _check_fraction(loss: str, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"{loss} needs {name} in (0, 1], got {value}. Try 0.1.")
