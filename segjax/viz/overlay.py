"""Label maps as colors, alone and on top of their image."""

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from segjax.typing import Array
from segjax.viz.rgb import Picture, Rgb, to_rgb

Palette = UInt8[np.ndarray, "c 3"]
LabelMap = Integer[Array, "h w"]
ValidMap = Bool[Array, "h w"]

VOID_COLOR = np.array([150, 150, 150], np.uint8)
WRONG_COLOR = np.array([235, 64, 52], np.uint8)


def color(label: LabelMap, palette: Palette, valid: ValidMap | None = None) -> Rgb:
    """Paints each class in its color.

    Args:
        label: [H, W] class ids in [0, C); never read where not valid.
        palette: [C, 3] colors.
        valid: [H, W] False where a pixel is gray; None for all True.

    Returns:
        [H, W, 3].

    Raises:
        ValueError: If a valid class id has no color.
    """
    label = np.asarray(label)
    keep = np.ones(label.shape, bool) if valid is None else np.asarray(valid)
    safe = np.where(keep, label, 0).astype(np.int64)
    if safe.size and not 0 <= safe.min() <= safe.max() < len(palette):
        raise ValueError(
            f"color needs class ids below {len(palette)}, got "
            f"{safe.min()}..{safe.max()}. Give one color a class, and mark void "
            f"pixels in `valid`."
        )
    return np.where(keep[..., None], palette[safe], VOID_COLOR)


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
        label: [H, W] class ids in [0, C). Class 0 stays as it is.
        palette: [C, 3] colors.
        valid: [H, W] False where a pixel stays as it is; None for all True.
        alpha: Share of the class color inside a region, in [0, 1]; its outline,
            one pixel inside, is opaque.

    Returns:
        [H, W, 3].
    """
    label = np.asarray(label)
    tinted = label > 0 if valid is None else (label > 0) & np.asarray(valid)
    label = np.where(tinted, label, 0)
    share = alpha * tinted
    share[edges(label) & tinted] = 1
    share = share[..., None]
    mixed = (1 - share) * to_rgb(image) + share * color(label, palette)
    return np.round(mixed).astype(np.uint8)


def errors(
    image: Picture, truth: LabelMap, prediction: LabelMap, valid: ValidMap
) -> Rgb:
    """Shows in red, on the dimmed gray image, where the prediction is wrong.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: [H, W] class ids; never read where not valid.
        prediction: [H, W] class ids.
        valid: [H, W] True where a pixel counts.

    Returns:
        [H, W, 3].
    """
    gray = to_rgb(image).mean(axis=-1, keepdims=True) * 0.6
    wrong = (np.asarray(truth) != np.asarray(prediction)) & np.asarray(valid)
    mixed = np.where(wrong[..., None], WRONG_COLOR, gray)
    return np.round(mixed).astype(np.uint8)


def edges(label: LabelMap) -> Bool[np.ndarray, "h w"]:
    """[H, W] True where one of the four neighbors has another class."""
    label = np.asarray(label)
    edge = np.zeros(label.shape, bool)
    rows, columns = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge
