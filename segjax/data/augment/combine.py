"""Augmentations made of augmentations."""

import jax
import jax.numpy as jnp

from segjax.typing import Augmentation, Example, Key


def compose(*augmentations: Augmentation) -> Augmentation:
    """Applies one after another, each with random numbers of its own.

    Args:
        *augmentations: In order. Member i gets the key folded with i: one added at
            the end leaves the numbers of the others as they were.

    Returns:
        The augmentation; with no members it changes nothing.
    """

    def augment(key: Key, example: Example) -> Example:
        for i, augmentation in enumerate(augmentations):
            example = augmentation(jax.random.fold_in(key, i), example)
        return example

    return augment


def sometimes(probability: float, augmentation: Augmentation) -> Augmentation:
    """Applies an augmentation to a random share of the examples.

    Both versions are computed: this saves no time.

    Args:
        probability: The share, in [0, 1].
        augmentation: Must keep the shapes.

    Returns:
        The augmentation.

    Raises:
        ValueError: If the probability is outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}.")

    def augment(key: Key, example: Example) -> Example:
        for_coin, for_change = jax.random.split(key)
        coin = jax.random.bernoulli(for_coin, probability)
        changed = augmentation(for_change, example)
        return jax.tree.map(lambda a, b: jnp.where(coin, a, b), changed, example)

    return augment
