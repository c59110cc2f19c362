"""Flips and quarter turns: exact, and without a lookup."""

import jax
import jax.numpy as jnp

from segjax.data.augment.example import check_spatial, move
from segjax.typing import Example, Key


def flip(key: Key, example: Example) -> Example:
    """Mirrors left and right, half of the time."""
    coin = jax.random.bernoulli(key)
    return move(example, lambda x: jnp.where(coin, x[:, ::-1], x))


def flip_vertical(key: Key, example: Example) -> Example:
    """Mirrors top and bottom, half of the time."""
    coin = jax.random.bernoulli(key)
    return move(example, lambda x: jnp.where(coin, x[::-1], x))


def quarter_turn(key: Key, example: Example) -> Example:
    """Turns by 0, 90, 180 or 270 degrees, each equally likely.

    Raises:
        ValueError: If the image is not square.
    """
    check_spatial(example)
    height, width = example["label"].shape
    if height != width:
        raise ValueError(
            f"quarter_turn needs a square image, got {height}x{width}. Use "
            "square crops (the pipeline's `size`), or flip and flip_vertical."
        )
    turns = jax.random.randint(key, (), 0, 4)

    def turn(x: jax.Array) -> jax.Array:
        # A turn by 90 degrees is a transpose and then a flip: the four turns need
        # three selections and no branch.
        x = jnp.where(turns % 2 == 1, jnp.swapaxes(x, 0, 1), x)
        x = jnp.where((turns == 1) | (turns == 2), x[::-1], x)
        return jnp.where(turns >= 2, x[:, ::-1], x)

    return move(example, turn)
