"""Maps that are computed from examples, as further entries of a data set."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from segjax.data.dataset import Dataset, example_name, image_size
from segjax.errors import UserError

Example = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class MappedExamples(Sequence[dict[str, Any]]):
    """Examples with one entry more, computed whenever an example is read.

    Attributes:
        examples: Any (Any: beartype would read one to check its type).
        entry: Name of the new entry.
        function: Computes it; see `with_map`.
    """

    examples: Any
    entry: str
    function: Callable[[Example], np.ndarray]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns an example."""
        example = self.examples[index]
        made = np.asarray(self.function(example))
        if made.shape[:2] != np.shape(example["label"]):
            raise UserError(
                f"with_map needs a function that returns a map of the label's size "
                f"{list(np.shape(example['label']))}; for {self.entry!r} it returned "
                f"{list(made.shape)}."
            )
        return dict(example) | {self.entry: made}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Returns (height, width) of an example."""
        return image_size(self.examples, index)

    def name(self, index: SupportsIndex) -> str:
        """Returns the name of an example."""
        return example_name(self.examples, index)


def with_map(
    dataset: Dataset, name: str, function: Callable[[Example], np.ndarray]
) -> Dataset:
    """Adds an entry to all examples, computed from each of them when it is read.

    Such as a weight map, a distance map or edges. In batches it is a field: cropped,
    padded (with 0) and augmented like the image. Decoded examples are cached
    (`Pipeline.cache_bytes`), so it is not computed again in each epoch.

        nuclei = data.with_map(data.dsb2018(), "depth", data.instance_depth)
        pipeline = data.Pipeline(dataset=nuclei, fields={"depth": data.Field("linear")})

    Args:
        dataset: Any data set.
        name: Name of the entry; a new one.
        function: `example -> map` [H, W] or [H, W, C], of a fixed dtype. The same
            example must give the same map. Reader processes need a function that can be
            pickled, such as one of a module.

    Returns:
        The data set with the entry. Its fingerprint changes with the name and with the
        map of the first example.

    Raises:
        ValueError: If examples have such an entry, or, when reading, if the map has
            another size than the label.
    """
    splits = {
        split: MappedExamples(examples, name, function)
        for split, examples in dataset.splits.items()
    }
    first = next((s for s in splits.values() if len(s)), None)
    digest = hashlib.sha256(f"{dataset.fingerprint} {name}".encode())
    if first is not None:
        if name in first.examples[0]:
            raise UserError(
                f"with_map needs a new name; examples of {dataset.name} have "
                f"{name!r} already."
            )
        digest.update(np.ascontiguousarray(first[0][name]).tobytes())
    return dataclasses.replace(dataset, splits=splits, fingerprint=digest.hexdigest())


def instance_depth(example: Example) -> np.ndarray:
    """Computes how deep each pixel lies in its instance.

    The distance to the nearest pixel outside of the instance, divided by the largest
    one in the instance: small and large instances have the same range, and touching
    ones have a valley between them. Made for `with_map`, and for the seeds of
    `inference.instances`.

    Args:
        example: With `instances` [H, W], any ids, 0 for background. Pixels beyond the
            image count as inside, so that cut instances are deepest at the edge.

    Returns:
        float32 [H, W]: 0 in the background, and in (0, 1] in instances. It is 1 in all
        pixels of an instance that fills the image.
    """
    from scipy import ndimage

    ids = np.asarray(example["instances"])
    numbers = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    if ids.all():
        numbers = numbers + 1
    depth = np.zeros(ids.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        part = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        inside = numbers[part] == number
        if inside.all():
            depth[part] = 1
        else:
            distance = np.asarray(ndimage.distance_transform_edt(inside))
            depth[part][inside] = (distance / distance.max())[inside]
    return depth
