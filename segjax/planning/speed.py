"""How fast this machine is, to turn a time into a number of updates."""

import time

import jax
import jax.numpy as jnp

from segjax import onednn
from segjax.ops.convolution import conv_by_xla

_FLOPS_PER_PIXEL = 9_000
"""Operations of an update per pixel of its crops, besides those of the network:
reading, augmentation and losses; measured with two CPU cores and three classes."""
_ONEDNN = 1.3
"""How much faster an update is at least where oneDNN computes convolutions."""


def flops_per_second(*, repeats: int = 5) -> float:
    """Measures the operations per second of a 3x3 convolution and its gradients.

    XLA computes it here. Convolutions by oneDNN are three times as fast, and a network
    with all that is around them 1.2 to 1.6 times, of which 1.3 is counted. Takes about
    a second. Other work on the machine makes the result smaller.

    Args:
        repeats: Number of measurements, of which the fastest counts.
    """
    image = jnp.ones((2, 192, 192, 16), jnp.float32)
    kernel = jnp.ones((3, 3, 16, 16), jnp.float32)

    def loss(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.mean(conv_by_xla(image, kernel) ** 2)

    work = jax.jit(jax.grad(loss, argnums=(0, 1)))
    jax.block_until_ready(work(image, kernel))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work(image, kernel))
        seconds.append(time.perf_counter() - began)
    faster = 1.0 if onednn.version() is None else _ONEDNN
    return faster * 3 * 2 * kernel.size * image.size / 16 / min(seconds)


def update_seconds(
    forward_flops: float,
    *,
    pixels: int,
    flops_per_second: float,
) -> float:
    """Estimates the time of an update.

    Args:
        forward_flops: Operations of the network's forward pass on a batch, as in
            `models.summarize`; the gradients take twice as many.
        pixels: Pixels of the batch's crops.
        flops_per_second: See `flops_per_second`.

    Returns:
        Seconds; off by up to half, since memory and caches are not counted. On two CPU
        cores a plain U-Net took 0.7 of it and one with an EfficientNet-Lite0 0.9, with
        oneDNN 0.8 and 1.0.
    """
    return (3 * forward_flops + _FLOPS_PER_PIXEL * pixels) / flops_per_second
