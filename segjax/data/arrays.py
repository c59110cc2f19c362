"""Arrays in memory as a data set."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from segjax.data import dataset, stored
from segjax.data.builders import splits
from segjax.errors import UserError

Arrays = Any
"""One array [N, ...], or a sequence of N arrays."""

_RESERVED = ("image", "label", "name")


class ArrayExamples(Sequence[dict[str, Any]]):
    """Examples in memory. Pickling copies them all: prefer threads to processes."""

    def __init__(self, examples: Sequence[dict[str, Any]]):
        self._examples = list(examples)
        self.digest = _digest(self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns an example."""
        return dict(self._examples[index.__index__()])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(dict, self._examples)

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Returns (height, width) of an example."""
        height, width = self._examples[index.__index__()]["label"].shape
        return height, width

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayExamples) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"ArrayExamples({len(self)} examples, {self.digest[:12]})"


def from_arrays(
    images: Arrays | Mapping[str, Sequence[Arrays]],
    labels: Arrays | None = None,
    *,
    classes: Sequence[str],
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    fields: Mapping[str, Arrays] | None = None,
) -> dataset.Dataset:
    """Makes a data set of images and labels in memory.

        data.from_arrays(images, labels, classes=("background", "cell"))
        data.from_arrays(
            {"train": (images, labels), "test": (more_images, more_labels)}, classes=...
        )

    Arrays that need no conversion are not copied: do not change them afterwards.

    Args:
        images: [N, H, W, K], or a sequence of N arrays [H, W, K] of any sizes, of
            uint8, uint16 or float32; in [N, H, W] and [H, W] the channel axis is added.
            Other dtypes are converted to one of these if it holds all values exactly.
            Or a mapping from split names to (images, labels) or (images, labels,
            fields); without "validation", its examples are drawn from "train".
        labels: [N, H, W], or N arrays [H, W], of class ids. 255 is ignored in uint8,
            65535 in uint16; other integer dtypes have no ignored id.
        classes: Class names; a class id is a position in this sequence.
        validation: Fraction held out for validation, in [0, 1); not used if there is a
            validation split.
        test: Fraction held out for testing, likewise; not used with named splits.
        seed: Chooses which examples are held out.
        fields: Further entries by name, N of each: maps [H, W] or [H, W, K], or values.
            `Pipeline(fields=...)` states how they are resampled.

    Raises:
        ValueError: If numbers of examples, sizes, dtypes or channels differ, or a label
            holds an id that is neither a class nor ignored; the message names the
            example.
    """
    names = _class_names(classes)
    if isinstance(images, Mapping):
        if labels is not None or fields:
            raise UserError(
                "from_arrays with named splits needs {name: (images, labels, fields)}, "
                "got separate labels or fields. Move them into the splits."
            )
        given = {split: _examples(part, names, split) for split, part in images.items()}
    else:
        given = {"train": _examples((images, labels, fields or {}), names, "train")}
    _check_dtypes(given)
    splits = _held_out(
        given,
        validation=validation,
        test=0.0 if isinstance(images, Mapping) else test,
        seed=seed,
    )
    made = {split: ArrayExamples(examples) for split, examples in splits.items()}
    parts = repr((names, [(k, v.digest) for k, v in made.items()]))
    fingerprint = hashlib.sha256(parts.encode()).hexdigest()
    return dataset.Dataset("arrays", names, made, fingerprint)


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or len(set(names)) < len(names):
        raise UserError(
            f"classes needs a sequence of different names, got {classes!r}."
        )
    stored.label_dtype(len(names))
    return names


def _held_out(
    given: dict[str, list[dict[str, Any]]], *, validation: float, test: float, seed: int
) -> Mapping[str, Sequence[dict[str, Any]]]:
    splits.check_fractions(validation, test)
    if "train" not in given:
        raise UserError(
            f'from_arrays needs a split "train", got {", ".join(given) or "none"}.'
        )
    if "validation" in given:
        return dict(given)
    drawn = splits.assign(given["train"], validation=validation, test=test, seed=seed)
    return given | dict(drawn)


def _examples(
    part: Sequence[Arrays], classes: tuple[str, ...], split: str
) -> list[dict[str, Any]]:
    """Makes and checks the examples of a split."""
    if len(part) not in (2, 3) or part[1] is None:
        raise UserError(
            f"split {split!r} needs images and labels (and perhaps fields), got "
            f"{len(part) if len(part) not in (2, 3) else 'no labels'}."
        )
    images, labels, *more = part
    columns = {"image": images, "label": labels, **(more[0] if more else {})}
    for name, values in columns.items():
        if len(values) != len(images) or not len(images):
            raise UserError(
                f"split {split!r} has {len(values)} of {name!r} and {len(images)} "
                f"images: needed equally many, at least one."
            )
        if more and name in more[0] and name in _RESERVED:
            raise UserError(f"the field name {name!r} is reserved; rename the field.")
    return [
        _example({k: np.asarray(v[i]) for k, v in columns.items()}, classes, split, i)
        for i in range(len(images))
    ]


def _example(
    arrays: dict[str, np.ndarray], classes: tuple[str, ...], split: str, number: int
) -> dict[str, Any]:
    where = f"example {number} of {split!r}"
    image = stored.image(arrays["image"], where)
    label = stored.label(arrays["label"], num_classes=len(classes), where=where)
    if image.shape[:2] != label.shape:
        raise UserError(
            f"{where} has an image of {list(image.shape[:2])} and a label of "
            f"{list(label.shape)} pixels: needed equal sizes."
        )
    return {**arrays, "image": image, "label": label, "name": f"{split} {number}"}


def _check_dtypes(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises a ValueError unless dtypes and channels are the same everywhere."""
    first = next((e for examples in splits.values() for e in examples), None)
    for example in (e for examples in splits.values() for e in examples):
        assert first is not None
        for key in ("image", "label"):
            got, need = (
                f"{e[key].dtype}{[*'HW', *e[key].shape[2:]]}".replace("'", "")
                for e in (example, first)
            )
            if got != need:
                raise UserError(
                    f"example {example['name']} has {key} {got}, {first['name']} has "
                    f"{need}: needed the same dtype and number of channels everywhere; "
                    f"convert it."
                )


def _digest(examples: Sequence[Mapping[str, Any]]) -> str:
    total = hashlib.sha256()
    for example in examples:
        for name, value in sorted(example.items()):
            x = np.asarray(value)
            total.update(f"{name} {x.dtype} {x.shape}".encode())
            total.update(np.ascontiguousarray(x).tobytes())
    return total.hexdigest()
