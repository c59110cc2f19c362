"""Synthetic photographs of a field, with a rare crop among weeds."""

import numpy as np
from PIL import Image

SOIL, WEED, CROP = 0, 1, 2


def field(rng, height=966, width=1296, *, plants=8, scale=1.0):
    """Draws one photograph and its mask.

    Soil is brown and noisy. A weed is a tuft of thin blades, a crop a rosette of round
    leaves, of nearly the same green: the two differ by shape, not by color.

    Returns:
        (image uint8 [H, W, 3], label uint8 [H, W]) with about 1.5 % crop pixels.
    """
    label = np.zeros((height, width), np.uint8)
    for _ in range(plants):
        _blades(rng, label, scale)
    for _ in range(plants):
        _rosette(rng, label, scale)
    colors = np.array([[110, 85, 60], [70, 120, 55], [60, 125, 65]], float)
    image = colors[label]
    coarse = rng.normal(0, 14, (height // 16 + 1, width // 16 + 1))
    image += np.kron(coarse, np.ones((16, 16)))[:height, :width, None]
    image += rng.normal(0, 10, (height, width, 1)) + rng.normal(0, 10)
    return np.clip(image, 0, 255).astype(np.uint8), label


def _ellipse(label, center, angle, radii, value):
    """Fills an ellipse; radii are along and across the angle, in pixels."""
    half = int(max(radii)) + 1
    y, x = map(int, center)
    top, left = max(y - half, 0), max(x - half, 0)
    part = label[top : max(y + half, 0), left : max(x + half, 0)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    dy, dx = rows + top - center[0], columns + left - center[1]
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    part[(along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1] = value


def _blades(rng, label, scale):
    center = rng.uniform(0, label.shape)
    for angle in rng.uniform(0, 2 * np.pi, 9):
        length = rng.uniform(45, 75) * scale
        tip = center + length * np.array([np.sin(angle), np.cos(angle)])
        _ellipse(label, tip, angle, (length, 7 * scale), WEED)


def _rosette(rng, label, scale):
    center = rng.uniform(0, label.shape)
    for angle in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, np.pi):
        away = 16 * scale * np.array([np.sin(angle), np.cos(angle)])
        _ellipse(label, center + away, angle, (14 * scale, 11 * scale), CROP)


def write_fields(folder, count=20, *, seed=0, ids=(0, 1, 2), **options):
    """Writes images/ and masks/ with the given mask values; returns the folder."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(1, count + 1):
        image, label = field(rng, **options)
        Image.fromarray(image).save(folder / f"images/{number:03d}.png")
        values = np.array(ids, np.uint8)[label]
        Image.fromarray(values).save(folder / f"masks/{number:03d}.png")
    (folder / "classes.txt").write_text("soil\nweed\ncrop\n")
    return folder
