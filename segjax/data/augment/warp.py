"""Zoom, rotation and elastic deformation, each by one resampling.

The image and `linear` fields are interpolated bilinearly, the label and `nearest`
fields by nearest neighbor. Pixels from outside the image are 0 and not valid. There is
no anti-aliasing: factors well below 1/2 cause aliasing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segjax.data.augment.example import (
    array_size,
    check_at_least,
    check_spatial,
    maps_of,
    update_objects,
)
from segjax.errors import UserError
from segjax.ops.warp import sample_bilinear, sample_nearest
from segjax.typing import Array, Augmentation, Example, Key


def resample(
    example: Example, rows: Float[Array, "h w"], columns: Float[Array, "h w"]
) -> Example:
    """Samples image, label, valid, masks and fields at the given coordinates.

    Args:
        example: Image, label and valid, [H, W, ...]; `masks` [N, H, W] if there are
            objects; `linear` and `nearest`, {name: [H, W, ...]}, if there are fields.
        rows: [H, W] row coordinates, in pixels from the center of the first pixel.
        columns: [H, W] column coordinates, likewise.

    Returns:
        The example with all of these resampled; outside of the image, pixels are 0, not
        valid and not part of an object.
    """
    check_spatial(example)

    def nearest(x: Array) -> Array:
        return sample_nearest(x, rows, columns)

    def linear(x: Array) -> Array:
        if x.ndim == 2:
            return sample_bilinear(x[..., None], rows, columns)[..., 0]
        return sample_bilinear(x, rows, columns)

    read = {
        "image": linear(example["image"]),
        "label": nearest(example["label"]),
        "valid": nearest(example["valid"]),
    }
    for group, maps in maps_of(example).items():
        read[group] = jax.tree.map(linear if group == "linear" else nearest, maps)
    if "masks" in example:
        last = jnp.moveaxis(example["masks"], 0, -1)  # One gather for all masks.
        masks = jnp.moveaxis(nearest(last), -1, 0)
        read |= update_objects(masks, example)
    if "size" in example:
        read["size"] = array_size(example)
    return {**example, **read}


def scale_and_crop(*, minimum: float = 0.5, maximum: float = 2.0) -> Augmentation:
    """Scales by a random factor, then crops or pads to the original size.

    Scaling up shows a random window of the image; scaling down puts the whole image at
    a random position.

    Args:
        minimum: Smallest factor, above 0.
        maximum: Largest factor; factors are log-uniform in [minimum, maximum].

    Returns:
        The augmentation.

    Raises:
        ValueError: If not 0 < minimum <= maximum.
    """
    if not 0 < minimum <= maximum:
        raise UserError(
            f"scale_and_crop needs 0 < minimum <= maximum, got {minimum}, {maximum}."
        )

    def augment(key: Key, example: Example) -> Example:
        for_zoom, for_place = jax.random.split(key)
        bounds = math.log(minimum), math.log(maximum)
        zoom = jnp.exp(jax.random.uniform(for_zoom, minval=bounds[0], maxval=bounds[1]))
        place = jax.random.uniform(for_place, (2,))
        return resample(example, *zoom_field(example["label"].shape, zoom, place))

    return augment


def rotate(*, degrees: float = 15.0) -> Augmentation:
    """Rotates about the center by an angle uniform in [-degrees, degrees].

    Raises:
        ValueError: If `degrees` is negative.
    """
    check_at_least(0, degrees=degrees)

    def augment(key: Key, example: Example) -> Example:
        angle = jax.random.uniform(key, minval=-1.0) * math.radians(degrees)
        return resample(example, *rotation_field(example["label"].shape, angle))

    return augment


def elastic(*, sigma: float = 10.0, grid: int = 3) -> Augmentation:
    """Deforms by random displacements on a coarse grid, interpolated bicubically.

    Args:
        sigma: Standard deviation of each displacement, in pixels. The default is
            the paper's, for images of 512 pixels.
        grid: Grid points along each side, from edge to edge; at least 2.

    Returns:
        The augmentation.

    Raises:
        ValueError: If `sigma` is negative or `grid` below 2.

    Reference:
        Ronneberger et al., U-Net, 2015, section 3.1. arXiv:1505.04597. The paper does
        not specify the border; here, pixels from outside are not valid.
    """
    check_at_least(0, sigma=sigma)
    check_at_least(2, grid=grid)

    def augment(key: Key, example: Example) -> Example:
        height, width = example["label"].shape
        knots = sigma * jax.random.normal(key, (2, grid, grid))
        along_rows = cubic_weights(height, grid)
        along_columns = cubic_weights(width, grid)
        moved = jnp.einsum("hi,dij,wj->dhw", along_rows, knots, along_columns)
        rows, columns = _pixels((height, width))
        return resample(example, rows + moved[0], columns + moved[1])

    return augment


def zoom_field(
    size: tuple[int, int], zoom: Float[Array, ""], place: Float[Array, "2"]
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Computes the source coordinates of each pixel under scaling.

    Args:
        size: (height, width).
        zoom: Above 1 magnifies.
        place: In [0, 1] for rows and columns: the fraction of the cropped (or padded)
            pixels that is before, rather than after, the image.

    Returns:
        Rows and columns, [H, W] each.
    """

    def source(x: Array, length: int, share: jax.Array) -> jax.Array:
        return share * (length - length / zoom) + (x + 0.5) / zoom - 0.5

    rows, columns = _pixels(size)
    return source(rows, size[0], place[0]), source(columns, size[1], place[1])


def rotation_field(
    size: tuple[int, int], angle: Float[Array, ""]
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Computes the source coordinates of each pixel under a rotation.

    Args:
        size: (height, width).
        angle: Radians; positive rotates the displayed image counter-clockwise.

    Returns:
        Rows and columns, [H, W] each.
    """
    middle = [(n - 1) / 2 for n in size]
    y, x = (p - m for p, m in zip(_pixels(size), middle, strict=True))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return middle[0] + cos * y + sin * x, middle[1] - sin * y + cos * x


def cubic_weights(size: int, grid: int) -> np.ndarray:
    """Computes the weight of each grid point at each pixel, by cubic convolution.

    Args:
        size: Number of pixels.
        grid: Number of points, the first and last at the centers of the outermost
            pixels; beyond them, their values are repeated.

    Returns:
        [size, grid] float32; rows sum to 1.

    Reference:
        Keys, Cubic convolution interpolation, 1981, with a = -1/2.
    """
    places = np.linspace(0, grid - 1, size)
    knots = np.arange(-2, grid + 2)
    t = np.abs(places[:, None] - knots[None])
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t <= 1, near, np.where(t < 2, far, 0))
    owner = np.clip(knots, 0, grid - 1)[:, None] == np.arange(grid)[None]
    return (weights @ owner).astype(np.float32)


def _pixels(size: tuple[int, int]) -> tuple[Array, Array]:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return rows, columns
