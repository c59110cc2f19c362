"""Checks of images, labels and fields, and exact conversion to stored dtypes."""

import numpy as np

from segjax import ops
from segjax.errors import UserError
from segjax.typing import Field

IMAGE_DTYPES = (np.uint8, np.uint16, np.float32)

_UINT16_MAX = np.iinfo(np.uint16).max


def image(pixels: np.ndarray, where: str) -> np.ndarray:
    """Converts an image to uint8, uint16 or float32 without changing its values.

    Args:
        pixels: [H, W] or [H, W, K]. Other integers become uint16 if all values fit;
            other floats become float32 if it holds them exactly.
        where: Name for messages: a file, or an example.

    Returns:
        [H, W, K]; K = 1 for [H, W].

    Raises:
        ValueError: For other shapes, dtypes and values, and for NaN and infinity.
    """
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise UserError(
            f"{where} has an image of shape {list(pixels.shape)}: needed [H, W] or "
            f"[H, W, K], not empty; save one image per file."
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
        if low >= 0 and high <= _UINT16_MAX:
            return pixels.astype(np.uint16)
        got = f"{pixels.dtype} numbers from {low} to {high}"
    else:
        got = f"{pixels.dtype} values"
    raise UserError(
        f"{where} holds {got}: needed uint8, uint16 or float32; convert it to one of "
        f"these, without rescaling."
    )


def label(ids: np.ndarray, *, num_classes: int, where: str) -> np.ndarray:
    """Converts a label map to uint8 or uint16 and checks every id.

    Args:
        ids: [H, W] integers. uint8 and uint16 are unchanged; their largest value is the
            ignore index. Other integers have no ignore index, and become uint8, or
            uint16 for more than 254 classes.
        num_classes: C; ids must be below.
        where: Name for messages.

    Raises:
        ValueError: For other shapes and dtypes, and for an invalid id.
    """
    if ids.ndim != 2:
        raise UserError(
            f"{where} has a label of shape {list(ids.shape)}: needed [H, W] class ids."
        )
    ids = _native(ids)
    if ids.dtype in (np.uint8, np.uint16):
        check_label(ids, num_classes=num_classes, where=where)
        return ids
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(
            f"{where} has a label of {ids.dtype}: needed integers; use "
            f"label.astype(np.uint8)."
        )
    wrong = ids[(ids < 0) | (ids >= num_classes)]
    dtype = label_dtype(num_classes)
    if wrong.size:
        ignored = ops.ignore_index(dtype)
        raise UserError(
            f"{where} holds label {wrong[0]}: needed 0 to {num_classes - 1}; to ignore "
            f"pixels, pass {np.dtype(dtype)} labels with the id {ignored} there."
        )
    return ids.astype(dtype)


def check_label(ids: np.ndarray, *, num_classes: int, where: str) -> None:
    """Raises a ValueError unless all ids are classes or the dtype's ignore index.

    Args:
        ids: uint8 or uint16, of any shape.
        num_classes: C; ids must be below.
        where: Name for messages.
    """
    ignored = ops.ignore_index(ids.dtype)
    if num_classes > ignored:
        raise UserError(
            f"{where} has a label of {ids.dtype}, where {ignored} is ignored: needed "
            f"uint16 for {num_classes} classes; convert it."
        )
    wrong = ids[(ids >= num_classes) & (ids != ignored)]
    if wrong.size:
        raise UserError(
            f"{where} holds label {wrong[0]}: needed 0 to {num_classes - 1} for the "
            f"{num_classes} classes, or {ignored} (ignored); correct the label, or "
            f"name all classes."
        )


def label_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Returns uint8 for up to 254 classes, else uint16; ValueError above 65534."""
    if not 1 <= num_classes < _UINT16_MAX:
        raise UserError(
            f"a data set needs 1 to {_UINT16_MAX - 1} classes, got {num_classes}."
        )
    return np.uint8 if num_classes < np.iinfo(np.uint8).max else np.uint16


def field(values: np.ndarray, kind: Field, where: str) -> np.ndarray:
    """Converts a further entry of an example to a dtype that devices support.

    Args:
        values: Booleans, integers or floats.
        kind: A "linear" field needs floats.
        where: Name for messages, with the field.

    Returns:
        Floats as float32; 64-bit integers as int32; other dtypes unchanged.

    Raises:
        ValueError: For other dtypes, and integers beyond int32.
    """
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32, copy=False)
    if kind.resample == "linear" or values.dtype.kind not in "biu":
        need = "floats" if kind.resample == "linear" else "numbers"
        raise UserError(
            f"{where} holds {values.dtype}: needed {need}, as its field is "
            f'"{kind.resample}"; convert it, or use another `resample`.'
        )
    if values.dtype.itemsize < 8:
        return values
    limits = np.iinfo(np.int32)
    if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
        raise UserError(
            f"{where} holds {values.dtype} numbers beyond 32 bits: needed int32, the "
            f"integers of devices; renumber them."
        )
    return values.astype(np.int32)


def _native(x: np.ndarray) -> np.ndarray:
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _float32(pixels: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise UserError(
            f"{where} holds NaN or infinity: needed finite numbers; replace those."
        )
    with np.errstate(over="ignore"):
        single = pixels.astype(np.float32, copy=False)
    if (single != pixels).any():
        raise UserError(
            f"{where} holds {pixels.dtype} numbers that float32 cannot represent: "
            f"needed float32; round them with .astype(np.float32)."
        )
    return single
