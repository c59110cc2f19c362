"""Compression artifacts of JPEG, computed as libjpeg does, but without files."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segjax.data.augment.example import check_image, value_range
from segjax.errors import UserError
from segjax.typing import Array, Augmentation, Example, Key

_BLOCK = 8
# Annex K of the standard (ITU-T T.81), for luminance and for chrominance.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMINANCE = np.full((_BLOCK, _BLOCK), 99, np.float32)
_CHROMINANCE[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]
# Y, Cb, Cr of red, green and blue (JFIF).
_OF_RGB = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ],
    np.float32,
)
_TO_RGB = np.array(
    [[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32
)


def jpeg_artifacts(*, minimum: float = 30.0, maximum: float = 95.0) -> Augmentation:
    """Compresses the image as JPEG of a random quality, and reads it again.

    For models that will see compressed photographs. Three channels are taken for RGB,
    with chrominance at half the size (4:2:0, the default of most programs); with other
    numbers of channels, each is compressed as a gray image.

    Args:
        minimum: Lowest quality, of [1, 100], as in Pillow and libjpeg.
        maximum: Highest quality.

    Returns:
        The augmentation; qualities are uniform in [minimum, maximum]. 0 to 255 of the
        file are [0, 1], or the range of the image if that is wider.

    Raises:
        ValueError: Unless 1 <= minimum <= maximum <= 100.
    """
    if not 1 <= minimum <= maximum <= 100:
        raise UserError(
            f"jpeg_artifacts needs 1 <= minimum <= maximum <= 100, got {minimum} and "
            f"{maximum}."
        )

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        quality = jax.random.uniform(key, (), minval=minimum, maxval=maximum)
        image = example["image"]
        darkest, brightest = value_range(image)
        spread = brightest - darkest
        left = compressed((image - darkest) / spread, quality)
        return {**example, "image": (darkest + spread * left).astype(image.dtype)}

    return augment


def compressed(
    image: Float[Array, "h w c"], quality: Float[Array, ""]
) -> Float[Array, "h w c"]:
    """Returns what is left of an image [H, W, C] in [0, 1] after JPEG of a quality."""
    # Bytes around 0, padded at the bottom and right to whole blocks of chrominance.
    height, width, channels = image.shape
    levels = jnp.round(image.astype(jnp.float32) * 255) - 128
    more = [(0, -side % (2 * _BLOCK)) for side in (height, width)]
    levels = jnp.pad(levels, [*more, (0, 0)], mode="edge")
    if channels == 3:
        # The levels of gray are subtracted from Y only: the rows of Cb, Cr sum to 0.
        planes = jnp.round(levels @ _OF_RGB.T)
        luma = _quantized(planes[..., 0], _LUMINANCE, quality)
        size = luma.shape
        colors = [
            _quantized(_halved(planes[..., k]), _CHROMINANCE, quality) for k in (1, 2)
        ]
        # Linear between the centers of pixels, which is libjpeg's "fancy upsampling".
        colors = [jax.image.resize(plane, size, "linear") for plane in colors]
        levels = jnp.stack([luma, *colors], -1) @ _TO_RGB.T
    else:
        planes = [
            _quantized(levels[..., k], _LUMINANCE, quality) for k in range(channels)
        ]
        levels = jnp.stack(planes, -1)
    levels = jnp.clip(jnp.round(levels[:height, :width] + 128), 0, 255)
    return levels / 255


def _halved(plane: Array) -> Array:
    """Means of 2x2 whole numbers, rounded down and up in turns, as libjpeg does."""
    height, width = plane.shape
    sums = plane.reshape(height // 2, 2, width // 2, 2).sum((1, 3))
    return jnp.floor((sums + 1 + jnp.arange(width // 2)[None] % 2) / 4)


def _quantized(plane: Array, table: np.ndarray, quality: Array) -> Array:
    """Rounds the cosine transform of each block to multiples of the table's entries."""
    scale = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    steps = jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)
    height, width = plane.shape
    shape = (height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    cosines = jnp.asarray(_cosines())
    blocks = jnp.einsum(
        "ui,aibj,vj->aubv", cosines, plane.reshape(shape), cosines, precision="highest"
    )
    steps = steps[None, :, None, :]
    # Halves are rounded away from 0; they are frequent, since pixels are whole.
    blocks = jnp.sign(blocks) * jnp.floor(jnp.abs(blocks) / steps + 0.5001) * steps
    pixels = jnp.einsum(
        "ui,aubv,vj->aibj", cosines, blocks, cosines, precision="highest"
    )
    return jnp.round(pixels).reshape(plane.shape)


def _cosines() -> np.ndarray:
    """The orthonormal cosine transform [8, 8]: frequency, pixel."""
    frequency, pixel = np.mgrid[:_BLOCK, :_BLOCK]
    waves = np.cos((2 * pixel + 1) * frequency * np.pi / (2 * _BLOCK))
    waves *= np.where(frequency == 0, np.sqrt(1 / _BLOCK), np.sqrt(2 / _BLOCK))
    return waves.astype(np.float32)
