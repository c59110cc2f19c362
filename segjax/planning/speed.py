"""How fast this machine is, to turn a time into a number of updates."""

import time

import jax
import jax.numpy as jnp

from segjax import compiler, ops

_FLOPS_PER_PIXEL = 9_000
"""Operations of an update per pixel of its crops, besides those of the network:
reading, augmentation and losses; measured with two CPU cores and three classes."""


def flops_per_second(*, repeats: int = 5) -> float:
    """Measures the operations per second of a convolution in a training step.

    That is a 3x3 convolution with batch norm and ReLU, and all gradients; only the
    operations of the convolution are counted. Takes about a second. Other work on the
    machine makes it smaller.

    Args:
        repeats: Number of measurements, of which the fastest counts.
    """
    image = jnp.ones((2, 192, 192, 16), jnp.float32)
    kernel = jnp.ones((3, 3, 16, 16), jnp.float32)
    scale = jnp.ones(16)

    def loss(image: jax.Array, kernel: jax.Array) -> jax.Array:
        made = ops.conv(image, kernel)
        made, *_ = ops.normalize_batch(made, scale, scale)
        return jnp.mean(jax.nn.relu(made) ** 2)

    work = jax.jit(
        jax.grad(loss, argnums=(0, 1)), compiler_options=compiler.compiler_options()
    )
    jax.block_until_ready(work(image, kernel))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work(image, kernel))
        seconds.append(time.perf_counter() - began)
    return 3 * 2 * kernel.size * image.size / 16 / min(seconds)


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
        cores a plain U-Net took 0.6 of it, one with an EfficientNet-Lite0 0.8.
    """
    return (3 * forward_flops + _FLOPS_PER_PIXEL * pixels) / flops_per_second
