"""Augmentations that change the image only, not label, valid and fields.

Results are clipped to [0, 1], or to the image's own range if that is wider, as for
normalized and unscaled images.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.data.augment.example import check_at_least, check_image, value_range
from segjax.errors import UserError
from segjax.typing import Array, Augmentation, Example, Key

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in PIL and torchvision.


def color_jitter(
    *, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2
) -> Augmentation:
    """Changes brightness, then contrast, then saturation, each by a random factor.

    Brightness scales the image (one that was normalized, around what became 0),
    contrast scales its distance from the image's mean gray, and saturation scales its
    distance from each pixel's gray. Gray is defined for three channels only: otherwise
    contrast scales the distance from each channel's mean, and `saturation` must be 0.

    Args:
        brightness: The factor is uniform in [1 - brightness, 1 + brightness]; in
            [0, 1], and 0 for no change.
        contrast: Likewise.
        saturation: Likewise.

    Returns:
        The augmentation.

    Raises:
        ValueError: If one is outside [0, 1]; when called, if `saturation` is not 0
            and the image does not have three channels.
    """
    spread = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in spread.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be in [0, 1], got {value}.")

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        original = example["image"]
        channels = original.shape[-1]
        if channels != 3 and saturation:
            raise UserError(
                f"color_jitter changes the saturation of 3 channels only, got "
                f"{channels}. Pass saturation=0."
            )
        luma = jnp.asarray(_LUMA)
        bright_factor, contrast_factor, saturation_factor = 1 + jax.random.uniform(
            key, (3,), minval=-1.0
        ) * jnp.asarray([*spread.values()])
        image = original * bright_factor
        if channels == 3:
            mean = jnp.mean(image @ luma)
        else:
            mean = jnp.mean(image, axis=(0, 1), keepdims=True)
        image = mean + (image - mean) * contrast_factor
        if channels == 3:
            gray = (image @ luma)[..., None]
            image = gray + (image - gray) * saturation_factor
        return {**example, "image": _clip(image, original)}

    return augment


def exposure(*, minimum: float = -1.0, maximum: float = 0.5) -> Augmentation:
    """Multiplies the image by a random power of two, like a camera's exposure.

    What is multiplied is the distance from black: from 0, or, in an image with values
    below 0, such as a normalized one, from its darkest value.

    Args:
        minimum: Smallest exponent, in stops: -1 halves the brightness.
        maximum: Largest exponent. Far above 0, most of the image saturates.

    Returns:
        The augmentation; exponents are uniform in [minimum, maximum].

    Raises:
        ValueError: If `minimum` exceeds `maximum`.
    """
    if minimum > maximum:
        raise UserError(
            f"exposure needs minimum <= maximum, got {minimum} and {maximum}."
        )

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        factor = jnp.exp2(jax.random.uniform(key, (), minval=minimum, maxval=maximum))
        image = example["image"]
        black, _ = value_range(image)
        return {**example, "image": _clip(black + (image - black) * factor, image)}

    return augment


def gamma(*, minimum: float = 0.7, maximum: float = 1.5) -> Augmentation:
    """Raises the image to a random power, which moves middle tones only.

    The image is taken relative to [0, 1], or to its own range if that is wider, so that
    the darkest and the brightest possible values stay.

    Args:
        minimum: Smallest exponent; below 1, dark regions become brighter.
        maximum: Largest exponent; above 1, they become darker.

    Returns:
        The augmentation; logarithms of exponents are uniform between the two.

    Raises:
        ValueError: Unless 0 < minimum <= maximum.
    """
    if not 0 < minimum <= maximum:
        raise UserError(
            f"gamma needs 0 < minimum <= maximum, got {minimum} and {maximum}."
        )
    low, high = math.log(minimum), math.log(maximum)

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        exponent = jnp.exp(jax.random.uniform(key, (), minval=low, maxval=high))
        image = example["image"]
        darkest, brightest = value_range(image)
        spread = brightest - darkest
        changed = darkest + spread * ((image - darkest) / spread) ** exponent
        return {**example, "image": changed.astype(image.dtype)}

    return augment


def gaussian_noise(*, sigma: float = 0.05) -> Augmentation:
    """Adds Gaussian noise, independent for each pixel and channel.

    Args:
        sigma: Largest standard deviation, in units of the preprocessed image; each
            image draws its own from [0, sigma].

    Returns:
        The augmentation.

    Raises:
        ValueError: If `sigma` is negative.
    """
    check_at_least(0, sigma=sigma)

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        for_strength, for_pixels = jax.random.split(key)
        strength = sigma * jax.random.uniform(for_strength)
        image = example["image"]
        added = strength * jax.random.normal(for_pixels, image.shape, image.dtype)
        return {**example, "image": _clip(image + added, image)}

    return augment


def gaussian_blur(*, sigma: float = 1.0) -> Augmentation:
    """Blurs with a Gaussian filter; the border is padded with its nearest pixel.

    Args:
        sigma: Largest standard deviation in pixels; each image draws its own from
            [0, sigma]. The kernel is truncated at three times `sigma`.

    Returns:
        The augmentation.

    Raises:
        ValueError: If `sigma` is negative.
    """
    check_at_least(0, sigma=sigma)
    radius = math.ceil(3 * sigma)

    def augment(key: Key, example: Example) -> Example:
        check_image(example)
        width = sigma * jax.random.uniform(key)
        image = gaussian_filter(example["image"], width, radius=radius)
        return {**example, "image": image}

    return augment


def gaussian_filter(
    image: Float[Array, "h w c"], sigma: Float[Array, ""], *, radius: int
) -> Float[Array, "h w c"]:
    """Applies a separable Gaussian filter of static radius and traced width.

    Args:
        image: [H, W, C].
        sigma: Standard deviation in pixels; 0 returns the image.
        radius: Radius of the kernel, in pixels.

    Returns:
        [H, W, C].
    """
    offsets = jnp.arange(-radius, radius + 1)
    # Below 1/100, the neighbors' weights are 0 in float32.
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-2)) ** 2)
    weights = weights / jnp.sum(weights)
    for axis in (0, 1):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        padded = jnp.pad(image, border, mode="edge")
        length = image.shape[axis]
        # Shifted sums fuse into one loop; convolutions with one kernel per image
        # would be grouped ones, which are slow on a CPU.
        image = jnp.zeros_like(image)
        for i, weight in enumerate(weights):
            shifted = jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
            image = image + weight * shifted
    return image


def _clip(image: Array, original: Array) -> Array:
    """Clips to [0, 1], or to the range of the original if that is wider."""
    return jnp.clip(image, *value_range(original))
