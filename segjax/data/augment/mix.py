"""Augmentations that put parts of one example of a batch into another."""

import jax
import jax.numpy as jnp

from segjax.data.augment import example as examples
from segjax.errors import UserError
from segjax.typing import EXAMPLES, Array, Augmentation, Example, Key

_OBJECTS = ("masks", "boxes", "classes", "object_mask", "crowd")


def cutmix(*, alpha: float = 1.0) -> Augmentation:
    """Replaces a random rectangle by that of the next example of the batch.

    The rectangle has 1 - r of the area, r ~ Beta(alpha, alpha), the aspect ratio of the
    image, and its center anywhere, so that a part of it may be outside. Labels, valid
    pixels, maps and objects come with it; objects are cut at its edges. An example
    whose objects would need more slots than there are is left unchanged. Maps of ids
    may then have the same id for objects of both images.

    Args:
        alpha: Above 0; 1 for uniform areas.

    Returns:
        The augmentation, which needs a batch: with one example, it does nothing.

    Reference:
        Yun et al., CutMix, ICCV 2019, arXiv:1905.04899. Labels of pixels take the place
        of the paper's mixed class label.

    Raises:
        ValueError: If `alpha` is not above 0; from the augmentation, outside of a
            train step, or for boxes without masks.
    """
    if not alpha > 0:
        raise UserError(f"alpha must be above 0, got {alpha}.")

    def augment(key: Key, example: Example) -> Example:
        examples.check_spatial(example)
        if (other := _next(example)) is None:
            return example
        area, center = jax.random.split(key)
        ratio = jax.random.beta(area, alpha, alpha)
        size = jnp.asarray(example["label"].shape, jnp.float32)
        half = jnp.sqrt(1 - ratio) * size / 2
        middle = jax.random.uniform(center, (2,)) * size
        rows, columns = jnp.indices(example["label"].shape)
        region = jnp.abs(rows + 0.5 - middle[0]) < half[0]
        region &= jnp.abs(columns + 0.5 - middle[1]) < half[1]
        if "masks" not in example:
            return _pasted(example, other, region)
        region &= _inside(example)
        masks = other["masks"] & region[None] & other["object_mask"][:, None, None]
        arriving = jnp.any(masks, axis=(1, 2))
        staying = (
            example["masks"] & ~region[None] & example["object_mask"][:, None, None]
        )
        count = jnp.sum(arriving) + jnp.sum(jnp.any(staying, axis=(1, 2)))
        fits = count <= len(arriving)
        return _pasted(example, other, region & fits, masks & fits)

    return augment


def copy_paste(*, probability: float = 0.5) -> Augmentation:
    """Pastes objects of the next example of the batch, where they were in it.

    Of the next example, each object is pasted with a probability, as far as there are
    free slots; crowd regions are not. Objects behind pasted ones lose their pixels, and
    end if they have none left. Labels, valid pixels and maps come with the pixels. Maps
    of ids may then have the same id for objects of both images.

    Args:
        probability: Of each object, in [0, 1].

    Returns:
        The augmentation, which needs a batch: with one example, it does nothing.

    Reference:
        Ghiasi et al., Simple Copy-Paste, CVPR 2021, arXiv:2012.07177. Edges are not
        blended, which the authors found to make no difference; the large jitter of
        scales is `scale_and_crop` before it.

    Raises:
        ValueError: If the probability is outside [0, 1]; from the augmentation, outside
            of a train step, or for examples without masks.
    """
    if not 0 <= probability <= 1:
        raise UserError(f"probability must be in [0, 1], got {probability}.")

    def augment(key: Key, example: Example) -> Example:
        if "masks" not in example:
            raise UserError(
                "copy_paste needs objects, got an example without masks. Set "
                "max_objects=N in the pipeline."
            )
        examples.check_spatial(example)
        if (other := _next(example)) is None:
            return example
        chosen = jax.random.bernoulli(key, probability, other["object_mask"].shape)
        chosen &= other["object_mask"]
        if "crowd" in other:
            chosen &= ~other["crowd"]
        masks = other["masks"] & chosen[:, None, None] & _inside(example)[None]
        seen = jnp.any(masks, axis=(1, 2))
        free = jnp.sum(~example["object_mask"])
        masks &= (seen & (jnp.cumsum(seen) <= free))[:, None, None]
        return _pasted(example, other, jnp.any(masks, axis=0), masks)

    return augment


def _next(example: Example) -> Example | None:
    """The next example of the batch, the first after the last; None if it is alone."""
    try:
        count = jax.lax.axis_size(EXAMPLES)
    except NameError as error:
        raise UserError(
            f"cutmix and copy_paste mix the examples of a batch. Call them as a step "
            f'does: jax.vmap(augmentation, axis_name="{EXAMPLES}")(keys, batch).'
        ) from error
    if count == 1:
        return None
    order = [((i + 1) % count, i) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, EXAMPLES, order), example)


def _inside(example: Example) -> jax.Array:
    """[H, W] True within the image, where it is smaller than its array."""
    rows, columns = jnp.indices(example["label"].shape)
    if "size" not in example:
        return jnp.ones(rows.shape, bool)
    return (rows < example["size"][0]) & (columns < example["size"][1])


def _pasted(
    example: Example, other: Example, region: Array, masks: Array | None = None
) -> Example:
    """Takes the pixels of a region from `other`, and the objects of `masks`."""

    def choose(ours: Array, theirs: Array) -> jax.Array:
        where = jnp.expand_dims(region, tuple(range(2, ours.ndim)))
        return jnp.where(where, theirs, ours)

    names = ("image", "label", "valid")
    new = {name: choose(example[name], other[name]) for name in names}
    new |= jax.tree.map(choose, examples.maps_of(example), examples.maps_of(other))
    if masks is not None:
        new |= _merged(example, other, example["masks"] & ~region[None], masks)
    return {**example, **new}


def _merged(example: Example, other: Example, ours: Array, theirs: Array) -> Example:
    """The objects of both with pixels left, ours first, in as many slots as before."""
    slots = len(ours)
    both = {
        name: jnp.concatenate([example[name], other[name]])
        for name in _OBJECTS
        if name in example
    }
    kept = examples.update_objects(jnp.concatenate([ours, theirs]), both)
    order = jnp.argsort(~kept["object_mask"], stable=True)[:slots]
    merged = {name: x[order] for name, x in {**both, **kept}.items()}
    if "classes" in merged:
        merged["classes"] = jnp.where(merged["object_mask"], merged["classes"], 0)
    return merged
