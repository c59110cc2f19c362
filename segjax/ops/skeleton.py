"""A differentiable skeleton."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.ops import checks
from segjax.typing import Array


def soft_skeleton(
    x: Float[Array, "b h w c"], *, iterations: int
) -> Float[Array, "b h w c"]:
    """Computes soft center lines of bright structures by min and max pooling.

    Each iteration adds to the skeleton what an opening removes, then erodes the image.

    Args:
        x: [B, H, W, C] in [0, 1].
        iterations: Number of erosions. Structures with a larger radius in pixels are
            not found.

    Returns:
        [B, H, W, C] in [0, 1]. Neighbors that tie share the gradient.

    Reference:
        Shit et al., clDice, 2021, algorithm 1. arXiv:2003.07311. As in the authors'
        code, minima are over the four neighbors, maxima over all eight.
    """
    checks.shapes(x=(x, "B H W C"))
    checks.whole_number("soft_skeleton", "iterations", iterations, least=0)
    x = checks.as_floats("x", x)

    def thin(carry, _):
        x, skeleton = carry
        smaller = jnp.negative(_largest(-x, (1, 2)))
        opened = _largest(_largest(smaller, (1,)), (2,))
        rest = jax.nn.relu(x - opened)
        return (smaller, skeleton + rest - skeleton * rest), None

    # A scan, because unrolled steps take XLA seconds to compile each.
    carry, _ = jax.lax.scan(thin, (x, jnp.zeros_like(x)), length=iterations + 1)
    return carry[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Maximum over a pixel and its neighbors along each of the axes.

    The custom gradient is faster than the one that JAX derives from a chain of maxima.
    """
    for neighbor in _neighbors(x, axes, -jnp.inf):
        x = jnp.maximum(x, neighbor)
    return x


@_largest.defjvp
def _largest_jvp(axes, primals, tangents):
    (x,), (tangent,) = primals, tangents
    largest = _largest(x, axes)
    own = x == largest
    ties, total = own.astype(x.dtype), jnp.where(own, tangent, 0)
    pairs = zip(
        _neighbors(x, axes, -jnp.inf), _neighbors(tangent, axes, 0), strict=True
    )
    for neighbor, share in pairs:
        ties = ties + (neighbor == largest)
        total = total + jnp.where(neighbor == largest, share, 0)
    return largest, total / ties


def _neighbors(x, axes, fill):
    """Yields the image shifted by one pixel, both ways along each axis."""
    for axis in axes:
        pad = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = jnp.pad(x, pad, constant_values=fill)
        for start in (0, 2):
            yield jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis)
