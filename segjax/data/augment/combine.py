"""Combinators of augmentations."""

import jax
import jax.numpy as jnp

from segjax.errors import UserError
from segjax.typing import Array, Augmentation, Example, Key


def compose(*augmentations: Augmentation) -> Augmentation:
    """Applies augmentations in order, with independent keys.

    Args:
        *augmentations: Each must keep the names, shapes and dtypes of the example.
            Augmentation i gets the key folded with i, so appending one does not change
            the random numbers of the others.

    Returns:
        The augmentation; without members, it returns the example unchanged.
    """
    if not augmentations:
        return lambda key, example: example

    def member(i: Array | int, key: Key, example: Example) -> Example:
        own = jax.random.fold_in(key, i)
        if isinstance(i, int):
            return augmentations[i](own, example)
        return jax.lax.switch(i, augmentations, own, example)

    def augment(key: Key, example: Example) -> Example:
        if jax.default_backend() == "cpu":
            # A loop, so that each result is stored: otherwise XLA on a CPU fuses each
            # augmentation into all reads of its result, and recomputes it there.
            def body(i: Array, example: Example) -> Example:
                return member(i, key, example)

            return jax.lax.fori_loop(0, len(augmentations), body, example)
        for i in range(len(augmentations)):
            example = member(i, key, example)
        return example

    return augment


def sometimes(probability: float, augmentation: Augmentation) -> Augmentation:
    """Applies an augmentation with a given probability.

    Both results are always computed, so this does not save time.

    Args:
        probability: In [0, 1].
        augmentation: Must keep the shapes.

    Returns:
        The augmentation.

    Raises:
        ValueError: If the probability is outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise UserError(f"probability must be in [0, 1], got {probability}.")

    def augment(key: Key, example: Example) -> Example:
        for_coin, for_change = jax.random.split(key)
        coin = jax.random.bernoulli(for_coin, probability)
        changed = augmentation(for_change, example)
        return jax.tree.map(lambda a, b: jnp.where(coin, a, b), changed, example)

    return augment
