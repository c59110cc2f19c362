"""Label maps as colors, alone and over their image."""

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from segjax.errors import UserError
from segjax.typing import Array
from segjax.viz.palette import palette as distinct_colors
from segjax.viz.rgb import Picture, Rgb, to_rgb

Palette = UInt8[np.ndarray, "c 3"]
LabelMap = Integer[Array, "h w"]
ValidMap = Bool[Array, "h w"]

IGNORED_COLOR = np.array([150, 150, 150], np.uint8)
ERROR_COLOR = np.array([235, 64, 52], np.uint8)
_OBJECT_COLORS = 12


def label_to_rgb(
    label: LabelMap, palette: Palette, valid: ValidMap | None = None
) -> Rgb:
    """Maps class ids to colors.

    Args:
        label: [H, W] class ids in [0, C); never read where not valid.
        palette: [C, 3] colors.
        valid: [H, W] False for ignored pixels, which are gray; None for all True.

    Returns:
        [H, W, 3].

    Raises:
        ValueError: If a valid class id has no color.
    """
    label = np.asarray(label)
    keep = np.ones(label.shape, bool) if valid is None else np.asarray(valid)
    safe = np.where(keep, label, 0).astype(np.int64)
    if safe.size and not 0 <= safe.min() <= safe.max() < len(palette):
        raise UserError(
            f"label_to_rgb needs class ids below {len(palette)}, got "
            f"{safe.min()}..{safe.max()}. Pass one color per class, and mark ignored "
            f"pixels in `valid`."
        )
    return np.where(keep[..., None], palette[safe], IGNORED_COLOR)


def overlay(
    image: Picture,
    label: LabelMap,
    palette: Palette,
    *,
    valid: ValidMap | None = None,
    alpha: float = 0.45,
) -> Rgb:
    """Tints an image with its classes and draws their outlines.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        label: [H, W] class ids in [0, C). Class 0 is not tinted.
        palette: [C, 3] colors.
        valid: [H, W] False for pixels that are not tinted; None for all True.
        alpha: Opacity of the class color inside a region, in [0, 1]; its outline, one
            pixel wide and inside the region, is opaque.

    Returns:
        [H, W, 3].
    """
    label = np.asarray(label)
    tinted = label > 0 if valid is None else (label > 0) & np.asarray(valid)
    label = np.where(tinted, label, 0)
    return _blended(image, label, label_to_rgb(label, palette), alpha)


def overlay_objects(image: Picture, ids: LabelMap, *, alpha: float = 0.45) -> Rgb:
    """Tints the objects of an image, each in a color of its own, with their outlines.

    There are 12 colors: ids that follow each other, as those of neighbors often do,
    have different ones, and the outlines separate objects of the same color.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        ids: [H, W] ids of objects; 0 is background.
        alpha: Opacity inside an object, in [0, 1].

    Returns:
        [H, W, 3].
    """
    ids = np.asarray(ids)
    colors = distinct_colors(_OBJECT_COLORS + 1)
    shown = np.where(ids > 0, 1 + ids % _OBJECT_COLORS, 0)
    return _blended(image, ids, colors[shown], alpha)


def _blended(image: Picture, ids: LabelMap, colors: Rgb, alpha: float) -> Rgb:
    """Tints pixels whose id is not 0; those at a border between ids are opaque."""
    opacity = alpha * (ids > 0)
    opacity[find_boundaries(ids) & (ids > 0)] = 1
    opacity = opacity[..., None]
    blended = (1 - opacity) * to_rgb(image) + opacity * colors
    return np.round(blended).astype(np.uint8)


def errors(
    image: Picture, truth: LabelMap, prediction: LabelMap, valid: ValidMap
) -> Rgb:
    """Draws wrong pixels in red on the dimmed gray image.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: [H, W] class ids; never read where not valid.
        prediction: [H, W] class ids.
        valid: [H, W] False for pixels that are not evaluated.

    Returns:
        [H, W, 3].
    """
    gray = to_rgb(image).mean(axis=-1, keepdims=True) * 0.6
    wrong = (np.asarray(truth) != np.asarray(prediction)) & np.asarray(valid)
    shown = np.where(wrong[..., None], ERROR_COLOR, gray)
    return np.round(shown).astype(np.uint8)


def find_boundaries(label: LabelMap) -> Bool[np.ndarray, "h w"]:
    """Finds the pixels that have a 4-neighbor of another class, [H, W]."""
    label = np.asarray(label)
    edge = np.zeros(label.shape, bool)
    rows, columns = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge
