"""Flips and rotations by multiples of 90 degrees, without interpolation."""

import jax
import jax.numpy as jnp

from segjax.data.augment.example import check_spatial, transform
from segjax.errors import UserError
from segjax.typing import Array, Example, Key


def horizontal_flip(key: Key, example: Example) -> Example:
    """Flips left and right with probability 1/2."""
    return _flip(jax.random.bernoulli(key), example, axis=1)


def vertical_flip(key: Key, example: Example) -> Example:
    """Flips top and bottom with probability 1/2."""
    return _flip(jax.random.bernoulli(key), example, axis=0)


def _flip(coin: Array, example: Example, *, axis: int) -> Example:
    size = example.get("size")

    def change(x: Array) -> Array:
        flipped = jnp.flip(x, axis)
        if size is not None:  # Moves a padded image back to the top left.
            flipped = jnp.roll(flipped, size[axis] - x.shape[axis], axis)
        return jnp.where(coin, flipped, x)

    return transform(example, change, size=size)


def rotate90(key: Key, example: Example) -> Example:
    """Rotates by 0, 90, 180 or 270 degrees with equal probability.

    Raises:
        ValueError: If the image is not square.
    """
    check_spatial(example)
    height, width = example["label"].shape
    if height != width:
        raise UserError(
            f"rotate90 needs a square image, got {height}x{width}. Use square crops "
            f"(the pipeline's `size`), or horizontal_flip and vertical_flip."
        )
    turns = jax.random.randint(key, (), 0, 4)

    def turn(x: Array) -> Array:
        # A rotation by 90 degrees is a transpose followed by a flip, so that three
        # selections are enough.
        x = jnp.where(turns % 2 == 1, jnp.swapaxes(x, 0, 1), x)
        x = jnp.where((turns == 1) | (turns == 2), x[::-1], x)
        return jnp.where(turns >= 2, x[:, ::-1], x)

    return transform(example, turn)
