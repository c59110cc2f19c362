"""Lossless encoding of arrays in records: PNG if possible, else zlib."""

import io
import zlib

import numpy as np
import PIL.Image

from segjax.files import images

_PNG = b"\x89PNG"
_RAW = b"RAW1"


def to_png(pixels: np.ndarray) -> io.BytesIO:
    """Encodes uint8 [H, W], uint8 [H, W, 3] or uint16 [H, W] as PNG."""
    png = io.BytesIO()
    # Much faster than the default, for slightly larger files (docs/speed.md).
    PIL.Image.fromarray(pixels).save(png, "PNG", compress_level=1)
    png.seek(0)
    return png


def pack(x: np.ndarray) -> bytes:
    """Encodes an array without loss.

    Args:
        x: [H, W] or [H, W, K] of uint8, uint16 or float32.

    Returns:
        A PNG for one uint8 or uint16 channel and for three uint8 channels; else the
        letters RAW1, a line with dtype and shape, and the array in C order, compressed
        by zlib.
    """
    flat = x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x
    as_png = flat.ndim == 2 or (flat.shape[-1] == 3 and flat.dtype == np.uint8)
    if as_png and flat.dtype in (np.uint8, np.uint16):
        return to_png(flat).getvalue()
    little = x.astype(x.dtype.newbyteorder("<"), copy=False)
    shape = ",".join(map(str, x.shape))
    header = f"{little.dtype.str} {shape}\n".encode("ascii")
    return _RAW + header + zlib.compress(little.tobytes(), 1)


def unpack(packed: bytes) -> np.ndarray:
    """Decodes what `pack` returned; [H, W, 1] stored as PNG is decoded to [H, W]."""
    if not packed.startswith(_RAW):
        pixels = images.pixels(images.decode(packed, "the record"))
        # Some versions of Pillow read 16-bit gray as int32.
        return pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)
    dtype, shape, start = _header(packed)
    content = bytearray(zlib.decompress(packed[start:]))
    x = np.frombuffer(content, dtype).reshape(shape)
    return x.astype(dtype.newbyteorder("="), copy=False)


def unpacked_size(packed: bytes) -> tuple[int, int]:
    """Reads (height, width) from the header."""
    if packed.startswith(_RAW):
        _, shape, _ = _header(packed)
        return shape[0], shape[1]
    return images.size(packed, "the record")


def form(packed: bytes) -> str:
    """Names the encoding, for messages."""
    return "PNG file" if packed.startswith(_PNG) else "encoded array"


def _header(packed: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    end = packed.index(b"\n")
    dtype, shape = packed[len(_RAW) : end].decode("ascii").split()
    return np.dtype(dtype), tuple(map(int, shape.split(","))), end + 1
