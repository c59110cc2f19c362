"""One example on the host: read, cut to size, split into label and valid."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.cache import DecodedCache
from segjax.data.pad import pad_to_size
from segjax.typing import VOID, Example


@dataclasses.dataclass(frozen=True)
class Reader:
    """A split's examples as `image`, `label`, `index`; a source for Grain.

    Attributes:
        examples: The split.
        split: Its name.
        cache: Shared by the splits of a pipeline; None keeps nothing.
    """

    examples: Sequence[Mapping[str, Any]]
    split: str
    cache: DecodedCache | None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        """`image` uint8 [H, W, 3], `label` uint8 [H, W], `index` in the split."""
        if self.cache is None:
            arrays = self._decode(index)
        else:
            arrays = self.cache.get((self.split, index), lambda: self._decode(index))
        return {**arrays, "index": np.int32(index)}

    def without_cache(self) -> "Reader":
        """The same examples, decoded at every read: small enough to send away."""
        return dataclasses.replace(self, cache=None)

    def _decode(self, index: int) -> dict[str, np.ndarray]:
        example = self.examples[index]
        image, label = np.asarray(example["image"]), np.asarray(example["label"])
        if image.shape != (*label.shape, 3):
            raise ValueError(
                f"example {index} of {self.split!r} needs an image [H, W, 3] and a "
                f"label [H, W], got {image.shape} and {label.shape}. Prepare it again."
            )
        return {"image": image, "label": label}


@dataclasses.dataclass(frozen=True)
class TrainExample:
    """Cuts the example at one position of the stream to the size of the batch.

    Attributes:
        seed: With the position, decides where to cut.
        size: (height, width) of the result.
        whole: Whether images must have that size already.
    """

    seed: int
    size: tuple[int, int]
    whole: bool

    def __call__(self, position: int, example: Example) -> Example:
        """Returns `image`, `label`, `valid`, `weight` and `index` of `size`."""
        have = example["label"].shape
        if self.whole and have != self.size:
            raise ValueError(
                f"size=None needs images of one size, got {have[0]}x{have[1]} "
                f"(example {example['index']}) beside {self.size[0]}x{self.size[1]}. "
                "Pass the (height, width) to train on."
            )
        top, left = self._corner(position, have)
        window = np.s_[top : top + self.size[0], left : left + self.size[1]]
        arrays = split_void(example["image"][window], example["label"][window])
        cut = {name: pad_to_size(x, self.size) for name, x in arrays.items()}
        index = np.int32(position % 2**31)
        return cut | {"weight": np.float32(1), "index": index}

    def _corner(self, position: int, have: tuple[int, int]) -> tuple[int, int]:
        rest = [max(0, h - want) for h, want in zip(have, self.size, strict=True)]
        if not any(rest):
            return 0, 0
        # Raw words of SeedSequence: NumPy promises never to change them.
        words = np.random.SeedSequence((self.seed, position)).generate_state(2)
        return int(words[0]) % (rest[0] + 1), int(words[1]) % (rest[1] + 1)


def split_void(image: np.ndarray, label: np.ndarray) -> Example:
    """Turns the void id into `valid`; `label` is 0 there, so any lookup is safe."""
    valid = label != VOID
    return {
        "image": image,
        "label": np.where(valid, label, 0).astype(np.int32),
        "valid": valid,
    }


def stack(examples: Sequence[Example]) -> Example:
    """Joins examples of one size along a new first axis."""
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}
