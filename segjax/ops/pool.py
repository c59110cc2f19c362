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
    the first of the window in row-major order takes the whole gradient. Written as
    comparisons of strided views, because the scatter in the gradient of a windowed
    maximum is slow on CPUs. NaN in a window gives NaN.

    Args:
        x: [B, H, W, C]. An odd last row or column is dropped.

    Returns:
        [B, H // 2, W // 2, C]; integers become float32.
    """
    checks.shapes(x=(x, "B H W C"))
    x = checks.floating("x", x)
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    even, odd = x[:, 0:height:2], x[:, 1:height:2]
    top = _first_max(even[:, :, 0:width:2], even[:, :, 1:width:2])
    bottom = _first_max(odd[:, :, 0:width:2], odd[:, :, 1:width:2])
    return _first_max(top, bottom)


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
