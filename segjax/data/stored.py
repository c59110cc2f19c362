"""Arrays as data sets store them: checked, of the same values, never rescaled."""

import numpy as np

from segjax import ops
from segjax.typing import Field

IMAGE_DTYPES = (np.uint8, np.uint16, np.float32)

_MOST = np.iinfo(np.uint16).max


def image(pixels: np.ndarray, where: str) -> np.ndarray:
    """An image as uint8, uint16 or float32 of the same values.

    Args:
        pixels: [H, W] or [H, W, K]. Other integers become uint16 if all values fit,
            other floats float32 if it holds them exactly.
        where: What messages name: a file, or an example.

    Returns:
        [H, W, K]; K = 1 for [H, W].

    Raises:
        ValueError: For other shapes, dtypes and values, and for NaN and infinity.
    """
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            f"{where} has an image of shape {list(pixels.shape)}: needed [H, W] or "
            f"[H, W, K], not empty; save one such image a file."
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    pixels = _native(pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        return _float32(pixels, where)
    if pixels.dtype in IMAGE_DTYPES:
        return pixels
    if np.issubdtype(pixels.dtype, np.integer):
        low, high = pixels.min(), pixels.max()
        if low >= 0 and high <= _MOST:
            return pixels.astype(np.uint16)
        got = f"{pixels.dtype} numbers from {low} to {high}"
    else:
        got = f"{pixels.dtype} values"
    raise ValueError(
        f"{where} holds {got}: needed uint8, uint16 or float32; convert it to one of "
        f"them without changing what the numbers mean."
    )


def label(ids: np.ndarray, *, num_classes: int, where: str) -> np.ndarray:
    """A label map as uint8 or uint16, with every id checked.

    Args:
        ids: [H, W] integers. uint8 and uint16 stay as they are: their greatest number
            is no class. Other integers have no such number, and become uint8, or
            uint16 for more than 254 classes.
        num_classes: Ids are below it.
        where: What messages name.

    Raises:
        ValueError: For other shapes and dtypes, and for an id that is no class.
    """
    if ids.ndim != 2:
        raise ValueError(
            f"{where} has a label of shape {list(ids.shape)}: needed [H, W] class ids."
        )
    ids = _native(ids)
    if ids.dtype in (np.uint8, np.uint16):
        check_label(ids, num_classes=num_classes, where=where)
        return ids
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"{where} has a label of {ids.dtype}: needed integers; use "
            f"label.astype(np.uint8)."
        )
    wrong = ids[(ids < 0) | (ids >= num_classes)]
    dtype = label_dtype(num_classes)
    if wrong.size:
        ignored = ops.ignore_index(dtype)
        raise ValueError(
            f"{where} holds label {wrong[0]}: needed 0 to {num_classes - 1}; for "
            f"pixels without a class pass {np.dtype(dtype)} labels, with {ignored} as "
            f"their id."
        )
    return ids.astype(dtype)


def check_label(ids: np.ndarray, *, num_classes: int, where: str) -> None:
    """Raises a ValueError unless all ids are classes or the ignored id of the dtype.

    Args:
        ids: uint8 or uint16, of any shape.
        num_classes: Ids are below it.
        where: What the message names.
    """
    ignored = ops.ignore_index(ids.dtype)
    if num_classes > ignored:
        raise ValueError(
            f"{where} has a label of {ids.dtype}, of which {ignored} is no class: "
            f"needed uint16 for {num_classes} classes; convert it."
        )
    wrong = ids[(ids >= num_classes) & (ids != ignored)]
    if wrong.size:
        raise ValueError(
            f"{where} holds label {wrong[0]}: needed 0 to {num_classes - 1} for the "
            f"{num_classes} classes, or {ignored} (ignored); correct the label, or "
            f"name all classes."
        )


def label_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """uint8 for at most 254 classes, else uint16. Raises ValueError above 65534."""
    if not 1 <= num_classes < _MOST:
        raise ValueError(
            f"a data set needs 1 to {_MOST - 1} classes, got {num_classes}."
        )
    return np.uint8 if num_classes < np.iinfo(np.uint8).max else np.uint16


def field(values: np.ndarray, kind: Field, where: str) -> np.ndarray:
    """A further entry of an example, in a dtype that devices keep.

    Args:
        values: Booleans, integers or floats.
        kind: A field "linear" needs floats.
        where: What messages name, with the field.

    Returns:
        Floats as float32; integers of 64 bits as int32; all else as it is.

    Raises:
        ValueError: For other dtypes, and integers beyond int32.
    """
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32, copy=False)
    if kind.resample == "linear" or values.dtype.kind not in "biu":
        need = "floats" if kind.resample == "linear" else "numbers"
        raise ValueError(
            f"{where} holds {values.dtype}: needed {need}, as its field is "
            f'"{kind.resample}"; convert it, or use another kind of field.'
        )
    if values.dtype.itemsize < 8:
        return values
    limits = np.iinfo(np.int32)
    if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
        raise ValueError(
            f"{where} holds {values.dtype} numbers beyond 32 bits: needed int32, as "
            f"devices compute with it; number anew."
        )
    return values.astype(np.int32)


def _native(x: np.ndarray) -> np.ndarray:
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _float32(pixels: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise ValueError(
            f"{where} holds NaN or infinity: needed finite numbers; replace them."
        )
    with np.errstate(over="ignore"):
        single = pixels.astype(np.float32, copy=False)
    if (single != pixels).any():
        raise ValueError(
            f"{where} holds {pixels.dtype} numbers that float32 cannot hold: needed "
            f"float32; convert it by .astype(np.float32)."
        )
    return single
