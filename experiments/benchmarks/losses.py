"""What each loss costs beside cross-entropy: value and gradient, compiled.

    python experiments/benchmarks/losses.py

Prints one line a loss: median milliseconds and the ratio to cross-entropy's median.
Each loss takes turns with cross-entropy, so that a busy machine slows both and a large
neighbor in the table leaves neither with a cold cache.
"""

import functools
from collections.abc import Callable

import bench
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from segjax import losses

PIXELWISE_OR_REGIONAL = [
    losses.cross_entropy,
    losses.balanced_cross_entropy,
    losses.top_k_cross_entropy,
    losses.ohem_cross_entropy,
    losses.focal,
    losses.asymmetric_unified_focal,
    losses.soft_dice,
    losses.generalized_dice,
    losses.log_cosh_dice,
    losses.jaccard,
    losses.tversky,
    losses.focal_tversky,
    losses.matthews,
    losses.sigmoid_cross_entropy,
    losses.sigmoid_focal,
    losses.sigmoid_dice,
    losses.sigmoid_tversky,
    losses.poly_cross_entropy,
    losses.symmetric_cross_entropy,
    losses.symmetric_unified_focal,
    losses.soft_bootstrap_cross_entropy,
    losses.hard_bootstrap_cross_entropy,
]
SORTED_OR_SPATIAL = [
    losses.lovasz_softmax,
    losses.lovasz_hinge,
    losses.boundary,
    losses.hausdorff,
    losses.soft_cldice,
]


def scene(shape: tuple[int, int, int, int]):
    """Logits, labels in blobs and valid pixels, as training in its middle has them."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0, shape[1] / 16, shape[2] / 16, 0))
    labels = np.argmax(smooth, axis=-1).astype(np.int32)
    logits = 3 * np.eye(shape[-1])[labels] + 2 * noise
    valid = rng.random(shape[:-1]) < 0.95
    return jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.asarray(valid)


def step_of(loss: Callable, batch) -> Callable:
    """The compiled value and gradient of a loss, ready to call."""
    logits, labels, valid = batch
    if loss.__name__.startswith("sigmoid"):
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    if loss is losses.lovasz_hinge:
        logits, labels = logits[..., :2], jnp.minimum(labels, 1)

    def total(logits, labels, valid):
        return jnp.sum(loss(logits, labels, valid))

    step = jax.jit(jax.value_and_grad(total)).lower(logits, labels, valid).compile()
    return functools.partial(step, logits, labels, valid)


def milliseconds(step: Callable) -> float:
    """One call, waited for."""
    return 1e3 * bench.seconds(lambda: jax.block_until_ready(step()))


def alternate(step: Callable, other: Callable, rounds: int) -> tuple[float, float]:
    """Median milliseconds of both, called in turns after one call each."""
    milliseconds(step), milliseconds(other)
    times = [(milliseconds(step), milliseconds(other)) for _ in range(rounds)]
    return tuple(np.median(times, axis=0))


def main(
    *, batch: int = 8, size: int = 256, classes: int = 4, rounds: int = 15
) -> None:
    """Measures and prints.

    Args:
        batch: Images.
        size: Height and width, in pixels.
        classes: Channels of the logits.
        rounds: Calls of each loss.
    """
    arguments = scene((batch, size, size, classes))
    cross_entropy = step_of(losses.cross_entropy, arguments)
    print(f"[{batch}, {size}, {size}, {classes}], {jax.devices()[0].device_kind}")
    print(f"{'loss':26}{'ms':>8}{'ratio':>8}")
    for loss in PIXELWISE_OR_REGIONAL + SORTED_OR_SPATIAL:
        ours, base = alternate(step_of(loss, arguments), cross_entropy, rounds)
        print(f"{loss.__name__:26}{ours:8.1f}{ours / base:8.2f}", flush=True)


if __name__ == "__main__":
    bench.run(main)
