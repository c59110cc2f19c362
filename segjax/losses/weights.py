"""Pixel weights and class weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from segjax import ops
from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array, Labels, Valid


def border_weights(
    instances: Integer[Array, "b h w"] | Bool[Array, "b h w"],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    background: float = 1.0,
    foreground: float = 1.0,
) -> Float[Array, "b h w"]:
    """Weight map of the U-Net paper, largest in the background between close instances.

    With d1 and d2 the distances of a background pixel to the nearest and to the
    second nearest instance,

        background + w0 * exp(-(d1 + d2)**2 / (2 * sigma**2))

    and `foreground` at the pixels of instances. The time does not depend on the number
    of instances, so it can run inside the train step:

        losses.semantic_weighted(
            lambda batch: losses.border_weights(batch["instances"]),
            ce=(1.0, losses.cross_entropy),
        )

    Args:
        instances: [B, H, W] instance ids, 0 for background.
        w0: Height of the border term.
        sigma: Its width, in pixels; above 0.
        background: Weight of background pixels before the border term.
        foreground: Weight of instance pixels. With `background` it is the paper's
            w_c, which balances the classes.

    Returns:
        [B, H, W] float32, in [background, background + w0] outside instances. The
        border term is 0 in an image with fewer than two instances.

    Raises:
        ValueError: If sigma is not above 0, another number is negative, or ids are no
            integers.

    Reference:
        Ronneberger et al., U-Net, 2015, equation 2. arXiv:1505.04597. The paper adds
        the border term inside cells too; as in common implementations, it is added in
        the background only, because it would be large throughout touching cells.
        Distances are to pixels of the cells.
    """
    if not 0 < sigma < math.inf:
        raise UserError(
            f"border_weights needs sigma above 0, got {sigma}. The paper's is 5."
        )
    numbers = {"w0": w0, "background": background, "foreground": foreground}
    for name, value in numbers.items():
        checks.number("border_weights", name, value, least=0)
    checks.shapes(instances=(instances, "B H W"))
    # Beyond 6 sigma a border term of height 10 is below float32's rounding of 1.
    first, second = ops.two_nearest(instances, max_distance=7 * sigma)
    border = w0 * jnp.exp(-((first + second) ** 2) / (2 * sigma**2))
    outside = jnp.logical_not(checks.as_mask("instances", instances))
    return jnp.where(outside, background + border, jnp.float32(foreground))


def pixel_counts(
    labels: Labels, valid: Valid, *, num_classes: int
) -> Int[Array, "b {num_classes}"]:
    """Counts the valid pixels of each class in each image, for class weights.

    Args:
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        num_classes: C.

    Returns:
        [B, C] int32. Add over images on the host, in int64.

    Raises:
        ValueError: If a shape or dtype is wrong; outside `jit`, also if a label is not
            in [0, C) at a valid pixel. Under `jit` such labels are not counted.
    """
    checks.whole_number("pixel_counts", "num_classes", num_classes, least=1)
    checks.shapes(labels=(labels, "B H W"), valid=(valid, "B H W"))
    valid = checks.as_mask("valid", valid)
    labels = checks.as_class_ids("labels", labels, num_classes=num_classes, valid=valid)
    labels = jnp.where(valid, labels, num_classes)  # All 0 in the one-hot.
    return jnp.sum(jax.nn.one_hot(labels, num_classes, dtype=jnp.int32), axis=(1, 2))


def inverse_frequency(class_counts: Int[Array, " c"]) -> Float[np.ndarray, " c"]:
    """Class weights total / (C * n), with which all classes have equal total weight.

    Args:
        class_counts: [C] pixels of each class in the training set.

    Returns:
        [C] float64 on the host; their mean over pixels is 1 if no class is empty. 0 for
        a class without pixels.

    Raises:
        ValueError: If a count is negative or all are 0.

    Reference:
        scikit-learn's `class_weight="balanced"`; King and Zeng, Logistic Regression
        in Rare Events Data, 2001.
    """
    class_counts = _check_counts(class_counts, "C")
    return _inverse(class_counts / class_counts.sum()) / class_counts.size


def median_frequency(class_counts: Int[Array, "n c"]) -> Float[np.ndarray, " c"]:
    """Class weights median(f) / f, with f the frequency of the class.

    f is the number of pixels of the class over the number of valid pixels in the images
    that contain it. The median is over the classes that occur.

    Args:
        class_counts: [N, C] pixels of each class in each image of the training set.

    Returns:
        [C] float64 on the host; 0 for a class without pixels.

    Raises:
        ValueError: If a count is negative or all are 0.

    Reference:
        Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels with
        a Common Multi-Scale Convolutional Architecture, 2015, section 6.3.2.
        arXiv:1411.4734.
    """
    class_counts = _check_counts(class_counts, "N C")
    pixels = np.sum((class_counts > 0) * class_counts.sum(axis=1)[:, None], axis=0)
    frequency = class_counts.sum(axis=0) / np.maximum(pixels, 1)
    return np.median(frequency[frequency > 0]) * _inverse(frequency)


def effective_number(
    class_counts: Int[Array, " c"], *, beta: float = 0.999
) -> Float[np.ndarray, " c"]:
    """Class weights (1 - beta) / (1 - beta**n), scaled to a mean of 1.

    Args:
        class_counts: [C] number of examples of each class. The paper counts images or
            boxes. Pixels of an object are not independent: count images or objects, or
            choose beta close to 1, such as 1 - 1 / n of a typical class.
        beta: In [0, 1): 0 gives equal weights, and the limit of 1 the inverse
            frequency.

    Returns:
        [C] float64 on the host, with mean 1 over the classes that occur; 0 for other
        classes.

    Raises:
        ValueError: If a count is negative, all are 0, or beta is out of range.

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019,
        section 3. arXiv:1901.05555.
    """
    if not 0 <= beta < 1:
        raise UserError(
            f"effective_number needs beta in [0, 1), got {beta}. Try 0.999."
        )
    class_counts = _check_counts(class_counts, "C")
    # log1p and expm1 are accurate for beta close to 1.
    number = -np.expm1(class_counts * np.log1p(beta - 1)) if beta else class_counts > 0
    weights = _inverse(np.asarray(number, np.float64))
    return weights / weights[class_counts > 0].mean()


def _check_counts(class_counts: Array, axes: str) -> np.ndarray:
    class_counts = np.asarray(class_counts, np.float64)
    checks.shapes(class_counts=(class_counts, axes))
    if not (class_counts >= 0).all() or not class_counts.any():
        raise UserError(
            "class weights need counts of at least 0 that are not all 0, got a "
            f"smallest of {class_counts.min():.0f} and a largest of "
            f"{class_counts.max():.0f}. Sum losses.pixel_counts over the training set."
        )
    return class_counts


def _inverse(x: np.ndarray) -> np.ndarray:
    """1 / x, and 0 where x is 0."""
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
