"""Dtypes and shapes that all examples of a data set share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segjax import ops
from segjax.data import stored
from segjax.data.faults import SpecError
from segjax.data.pad import pad_to_size
from segjax.errors import UserError
from segjax.typing import Example, Field

Arrays = Mapping[str, np.ndarray]
Size = tuple[int, int]
Window = tuple[slice, slice]
"""Rows and columns of an image."""

ALL: Window = (slice(None), slice(None))


def arrays_of(
    example: Mapping[str, Any], fields: Mapping[str, Field], *, objects: bool
) -> dict[str, np.ndarray]:
    """Selects and checks the entries of an example that batches are made of.

    Args:
        example: From the data set.
        fields: Further entries to select.
        objects: Whether to select `instances` and `objects`, if present.

    Raises:
        SpecError: If an entry is missing or has an unsupported dtype or rank.
        ValueError: If maps differ in size.
    """
    missing = [k for k in ("image", "label", *fields) if k not in example]
    if missing:
        raise SpecError(
            f"has no {missing[0]!r}, got {', '.join(sorted(example))}. Add it to the "
            f"data set, or remove it from `fields`."
        )
    optional = ("instances", "objects") if objects else ()
    names = ("image", "label", *(k for k in optional if k in example))
    arrays = {k: np.asarray(example[k]) for k in names}
    _check_dtypes(arrays)
    for name, kind in fields.items():
        values = np.asarray(example[name])
        try:
            arrays[name] = stored.field(values, kind, f"field {name!r}")
        except ValueError as error:
            raise SpecError(str(error)) from error
    _check_sizes(arrays, fields, str(example.get("name", "it")))
    return arrays


def _check_dtypes(arrays: Arrays) -> None:
    image, label = arrays["image"], arrays["label"]
    if image.ndim == 2:
        raise SpecError(
            f"has an image {list(image.shape)}: needed [H, W, K]. Add a channel axis: "
            f"image[..., None]."
        )
    if image.dtype not in stored.IMAGE_DTYPES:
        raise SpecError(
            f"has an image of {image.dtype}: needed uint8, uint16 or float32. Convert "
            f"it."
        )
    if label.dtype not in (np.uint8, np.uint16):
        raise SpecError(
            f"has a label of {label.dtype}: needed uint8 (255 is ignored) or uint16 "
            f"(65535 is ignored). Convert it, or use data.from_arrays."
        )


def _check_sizes(arrays: Arrays, fields: Mapping[str, Field], name: str) -> None:
    image, label = arrays["image"], arrays["label"]
    if image.ndim != 3 or image.shape[:2] != label.shape:
        raise UserError(
            f"{name} needs an image [H, W, K] and maps [H, W], got image {image.shape} "
            f"and label {label.shape}"
        )
    maps = {k for k, field in fields.items() if field.resample != "none"}
    for key in sorted((maps | {"instances"}) & arrays.keys()):
        shape = arrays[key].shape
        if shape[:2] != label.shape or len(shape) > 3:
            raise UserError(
                f"{name} needs maps of its image's size, got {key} {shape} and label "
                f"{label.shape}"
            )


@dataclasses.dataclass(frozen=True)
class ExampleSpec:
    """Dtypes and shapes that all examples share.

    Attributes:
        maps: For image, label and map fields: dtype, and shape after [H, W].
        values: For fields with resample="none": dtype and shape.
    """

    maps: Mapping[str, tuple[np.dtype, tuple[int, ...]]]
    values: Mapping[str, tuple[np.dtype, tuple[int, ...]]]

    @classmethod
    def of(cls, arrays: Arrays, fields: Mapping[str, Field]) -> "ExampleSpec":
        """Returns the spec of an example from `arrays_of`."""
        mapped = [k for k, field in fields.items() if field.resample != "none"]
        maps = {
            k: (arrays[k].dtype, arrays[k].shape[2:])
            for k in ("image", "label", *mapped)
        }
        single = [k for k in fields if k not in mapped]
        return cls(maps, {k: (arrays[k].dtype, arrays[k].shape) for k in single})

    def check(self, arrays: Arrays, where: str) -> None:
        """Raises a SpecError if an example has another spec.

        Args:
            arrays: The example.
            where: Its name for messages.
        """
        for leading, entries in ((2, self.maps), (0, self.values)):
            for name, (dtype, shape) in entries.items():
                x = arrays[name]
                if x.dtype == dtype and x.shape[leading:] == shape:
                    continue
                front = ["H", "W"][:leading]
                got, need = ([*front, *s] for s in (x.shape[leading:], shape))
                raise SpecError(
                    f"{where} has {name} {x.dtype} [{_joined(got)}], the first example "
                    f"{dtype} [{_joined(need)}]: needed the same dtype and number of "
                    f"channels in the whole data set; convert it, or remove it."
                )

    def row(
        self,
        arrays: Arrays,
        size: Size,
        *,
        window: Window = ALL,
        pad_image: Callable[[np.ndarray, Size], np.ndarray] = pad_to_size,
    ) -> Example:
        """Makes one row of a batch, without `index`.

        Args:
            arrays: The example.
            size: (height, width) to pad to, with zeros and ignored labels.
            window: Rows and columns to crop.
            pad_image: Pads the image.
        """
        made: Example = {k: arrays[k] for k in self.values}
        for name in self.maps:
            part = arrays[name][window]
            if name == "image":
                made[name] = pad_image(part, size)
            else:
                made[name] = pad_to_size(part, size, value=self._padding(name))
        return made | {"weight": np.float32(1)}

    def padding_row(self, size: Size) -> Example:
        """Makes a row of weight 0: zeros and ignored labels, without `index`."""
        made: Example = {k: np.zeros(s, t) for k, (t, s) in self.values.items()}
        for name, (dtype, shape) in self.maps.items():
            made[name] = np.full((*size, *shape), self._padding(name), dtype)
        return made | {"weight": np.float32(0)}

    def _padding(self, name: str) -> int:
        return ops.ignore_index(self.maps[name][0]) if name == "label" else 0


def _joined(shape: list) -> str:
    return ", ".join(map(str, shape))


def check_labels(
    label: np.ndarray, numbers: np.ndarray, *, split: str, num_classes: int
) -> None:
    """Checks the labels of a batch.

    Args:
        label: [B, H, W] as stored.
        numbers: [B] example numbers of the rows; negative for padding rows.
        split: The split of the batch.
        num_classes: C; ids must be in [0, C) or ignored.

    Raises:
        ValueError: For any other id; the message names the example.
    """
    for number, ids in zip(numbers.tolist(), label, strict=True):
        if number >= 0:
            where = f"record {number} of {split!r}"
            stored.check_label(ids, num_classes=num_classes, where=where)
