"""Flips and quarter turns: exact, and without a lookup."""

import jax
import jax.numpy as jnp

from segjax.data.augment.example import check_spatial, move
from segjax.typing import Array, Example, Key


def flip(key: Key, example: Example) -> Example:
    """Mirrors left and right, half of the time."""
    return _mirror(jax.random.bernoulli(key), example, axis=1)


def flip_vertical(key: Key, example: Example) -> Example:
    """Mirrors top and bottom, half of the time."""
    return _mirror(jax.random.bernoulli(key), example, axis=0)


def _mirror(coin: Array, example: Example, *, axis: int) -> Example:
    size = example.get("size")

    def change(x: Array) -> Array:
        mirrored = jnp.flip(x, axis)
        if size is not None:  # A smaller image goes back to the top left.
            mirrored = jnp.roll(mirrored, size[axis] - x.shape[axis], axis)
        return jnp.where(coin, mirrored, x)

    return move(example, change, size=size)


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

    def turn(x: Array) -> Array:
        # A turn by 90 degrees is a transpose and then a flip: the four turns need
        # three selections and no branch.
        x = jnp.where(turns % 2 == 1, jnp.swapaxes(x, 0, 1), x)
        x = jnp.where((turns == 1) | (turns == 2), x[::-1], x)
        return jnp.where(turns >= 2, x[:, ::-1], x)

    return move(example, turn)
