"""Max pooling with a gradient that is fast on all backends."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from segjax.ops import checks
from segjax.typing import Array


def max_pool_2x2(
    x: Float[Array, "b h w c"] | Integer[Array, "b h w c"],
) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 2x2 windows with stride 2.

    Equals `nn.max_pool(x, (2, 2), strides=(2, 2))` in value and in gradient: in a tie,
    the first of the window in row-major order takes the whole gradient. The gradient
    is one elementwise operation, because the scatter in that of a windowed maximum is
    slow on CPUs. NaN in a window gives NaN.

    Args:
        x: [B, H, W, C]. An odd last row or column is dropped.

    Returns:
        [B, H // 2, W // 2, C]; integers become float32.
    """
    checks.shapes(x=(x, "B H W C"))
    x = checks.floating("x", x)
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return _max_of_blocks(x[:, :height, :width])


@jax.custom_jvp
def _max_of_blocks(x: Array) -> jax.Array:
    pairs = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(pairs[:, :, 0::2], pairs[:, :, 1::2])


@_max_of_blocks.defjvp
def _max_of_blocks_jvp(primals, tangents):
    (x,), (moved,) = primals, tangents
    best = _max_of_blocks(x)
    batch, height, width, channels = best.shape
    split = (batch, height, 2, width, 2, channels)
    blocks = x.reshape(split)
    # Where the maximum is, 0 to 3 in row-major order, as a number that all four pixels
    # of a block compare with their own.
    place = jnp.int8(3)
    for number in (2, 1, 0):
        pixel = blocks[:, :, number // 2, :, number % 2]
        place = jnp.where(pixel == best, jnp.int8(number), place)
    own = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
    chosen = place[:, :, None, :, None] == own
    tangent = jnp.sum(jnp.where(chosen, moved.reshape(split), 0), axis=(2, 4))
    return best, tangent.astype(best.dtype)


def max_pool_3x3(
    x: Float[Array, "b h w c"] | Integer[Array, "b h w c"],
) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 3x3 windows with stride 2 and padding 1, as in ResNets.

    Equals `nn.max_pool(x, (3, 3), strides=(2, 2), padding=1)`, and its gradient except
    for ties. Written as comparisons of strided views, as `max_pool_2x2` is.

    Args:
        x: [B, H, W, C]. Padding pixels are ignored.

    Returns:
        [B, H / 2, W / 2, C], sizes rounded up; integers become float32.
    """
    checks.shapes(x=(x, "B H W C"))
    x = checks.floating("x", x)
    for axis in (1, 2):
        length = x.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1 + length % 2)
        padded = jnp.pad(x, pad, constant_values=-jnp.inf)
        first, middle, last = (
            jax.lax.slice_in_dim(padded, i, i + length + length % 2, 2, axis)
            for i in range(3)
        )
        x = _first_max(_first_max(first, middle), last)
    return x


def _first_max(a: Array, b: Array) -> jax.Array:
    # jnp.maximum would split the gradient of a tie; `a != a` keeps NaN.
    return jnp.where((a >= b) | (a != a), a, b)


def mean_pool(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Mean over factor x factor windows with the same stride.

    Args:
        x: [B, H, W, C]; H and W are multiples of the factor.
        factor: At least 1; 1 returns x.

    Returns:
        [B, H / factor, W / factor, C].
    """
    checks.shapes(x=(x, "B H W C"))
    batch, height, width, channels = x.shape
    split = (batch, height // factor, factor, width // factor, factor, channels)
    return jnp.mean(x.reshape(split), axis=(2, 4))
