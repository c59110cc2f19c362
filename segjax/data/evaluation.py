"""Whole images in batches of equal size, every one once."""

import contextlib
from collections.abc import Generator

import numpy as np

from segjax.data.examples import split_void, stack
from segjax.data.pad import mirror_to_size, pad_to_size, padded_size
from segjax.typing import Batch, Example


def padded_batches(
    examples: Generator[Example, None, None], *, batch_size: int, multiple: int
) -> Generator[Batch, None, None]:
    """Groups a stream of examples by padded size, reading each once.

    Args:
        examples: `image` [H, W, 3], `label` [H, W] and `index`; closed at the end.
        batch_size: Rows of every batch.
        multiple: Sides are padded until they divide by it.

    Returns:
        Batches, each as soon as it is full; then the short ones, by the order in
        which their sizes first appeared, filled up with `weight` 0.

    Raises:
        ValueError: If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    return _padded_batches(examples, batch_size, multiple)


def _padded_batches(
    examples: Generator[Example, None, None], batch_size: int, multiple: int
) -> Generator[Batch, None, None]:
    waiting: dict[tuple[int, int], list[Example]] = {}
    with contextlib.closing(examples):
        for example in examples:
            size = padded_size(example["label"].shape, multiple)
            group = waiting.setdefault(size, [])
            group.append(_padded(example, size))
            if len(group) == batch_size:
                yield stack(group)
                group.clear()
    for group in waiting.values():
        if group:
            filler = [_filler(group[0])] * (batch_size - len(group))
            yield stack(group + filler)


def _padded(example: Example, size: tuple[int, int]) -> Example:
    arrays = split_void(example["image"], example["label"])
    padded = {name: pad_to_size(x, size) for name, x in arrays.items()}
    padded["image"] = mirror_to_size(arrays["image"], size)
    return padded | {"weight": np.float32(1), "index": example["index"]}


def _filler(like: Example) -> Example:
    """A row that counts nowhere: all zero, and an index that no example has."""
    return {name: np.zeros_like(x) for name, x in like.items()} | {
        "index": np.int32(-1)
    }
