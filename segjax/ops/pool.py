"""Max pooling whose gradient is cheap on every backend."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.typing import Array


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 2x2 blocks, moving by 2.

    Equals `nn.max_pool(x, (2, 2), strides=(2, 2))` in value and in gradient: at a
    tie, the first of the block in row order takes the whole gradient. Written as
    comparisons of strided views, because the scatter that differentiates a windowed
    maximum is slow on CPUs. NaN in a block gives NaN.

    Args:
        x: [B, H, W, C]. An odd last row or column is left out.

    Returns:
        [B, H // 2, W // 2, C].
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    even, odd = x[:, 0:height:2], x[:, 1:height:2]
    top = _first_max(even[:, :, 0:width:2], even[:, :, 1:width:2])
    bottom = _first_max(odd[:, :, 0:width:2], odd[:, :, 1:width:2])
    return _first_max(top, bottom)


def _first_max(a: Array, b: Array) -> jax.Array:
    # jnp.maximum would split the gradient at a tie; `a != a` keeps its NaN.
    return jnp.where((a >= b) | (a != a), a, b)
