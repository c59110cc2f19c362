"""The README's picture: images of nuclei, truth, and what a run predicts.

    python experiments/dsb2018_picture.py RUN --source DIR --out docs/nuclei.png

RUN is of `dsb2018_unet_instances.py`. The images are from stage1_test of the Data
Science Bowl 2018 (BBBC038, CC0), cropped to their upper left 200 x 200 pixels.
"""

import argparse
import inspect
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

import segjax
from segjax import data, inference, viz

SIDE = 200  # Pixels of the image.
SHOWN = 280  # Pixels of the picture.
MARGIN = 8


def colored(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The image with a color for every object of a map of ids [H, W]."""
    numbers = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    colors = viz.palette(int(numbers.max()) + 1)
    return viz.overlay(image, numbers.astype(np.int32), colors, alpha=0.5)


def brightened(image: np.ndarray) -> np.ndarray:
    """The image with its brightest pixels at 255: fluorescence is dark."""
    high = max(float(np.percentile(image, 99.5)), 1.0)
    return np.clip(image * (255 / high), 0, 255).astype(np.uint8)


def row(model: inference.Model, example: dict) -> list[np.ndarray]:
    """Image, truth and prediction [200, 200, 3] of one example."""
    p = model.predict(example["image"]).probabilities
    found = inference.instances(p[..., 1], p[..., 1] + p[..., 2])
    crop = np.s_[:SIDE, :SIDE]
    image = brightened(example["image"][crop])
    return [
        image,
        colored(image, example["instances"][crop]),
        colored(image, found[crop]),
    ]


def sheet(columns: list[list[np.ndarray]]) -> Image.Image:
    """Joins examples side by side, with the names of the rows on the left."""
    cell = SHOWN + MARGIN
    left = 100
    made = Image.new("RGB", (left + len(columns) * cell, 3 * cell), "white")
    draw = ImageDraw.Draw(made)
    for j, name in enumerate(("image", "truth", "predicted")):
        draw.text((MARGIN, j * cell + cell // 2), name, "black", font_size=18)
        for i, column in enumerate(columns):
            picture = Image.fromarray(column[j]).resize((SHOWN, SHOWN))
            made.paste(picture, (left + i * cell, j * cell))
    return made


def main(args: list[str]) -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[4, 6, 15, 33])
    options = parser.parse_args(args)
    model = segjax.load(options.run)
    test = data.dsb2018(options.source).splits["test"]
    columns = [row(model, test[i]) for i in options.images]
    sheet(columns).quantize(256).save(options.out, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
