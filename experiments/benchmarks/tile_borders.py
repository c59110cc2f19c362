"""How much tiles change the result of a convolutional network, by their overlap.

    segjax train experiments/digits_unet.py --run runs/digits_unet
    python experiments/benchmarks/tile_borders.py --run runs/digits_unet

Prints a table and draws a figure: the difference of the probabilities from those of the
whole image, by overlap, by the distance to the border of a tile, and as a picture.
"""

import dataclasses
import pathlib

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.table import Table

import segjax
from segjax import data, inference, terminal
from segjax.viz.curves import COLORS

OVERLAPS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
WINDOWS = {
    "Gaussian weights": inference.gaussian_window,
    "constant weights": inference.constant_window,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags.

    Attributes:
        run: A run of experiments/digits_unet.py.
        tile: Side of the tiles, in pixels.
        tiles: Tiles on each side of the image where they do not overlap.
        out: The figure.
    """

    run: pathlib.Path
    tile: int = 128
    tiles: int = 6
    out: pathlib.Path = pathlib.Path("docs/tile_borders.png")


def main(options: Options) -> None:
    """Compares tiles with the whole image."""
    model, image = segjax.load(options.run), scenes(options.tile * options.tiles)
    whole = model.probabilities(image[None])[0]
    errors = {}
    for name, window in WINDOWS.items():
        for overlap in OVERLAPS:
            predict = inference.sliding_window(
                model.probabilities, tile=options.tile, overlap=overlap, window=window
            )
            difference = np.abs(predict(image[None])[0] - whole)
            errors[name, overlap] = difference.max(axis=-1)
    terminal.console().print(table(errors))
    draw(errors, options)


def scenes(side: int) -> np.ndarray:
    """Joins scenes of the test split to one square image."""
    examples = data.digits().splits["test"]
    count = -(-side // examples[0]["image"].shape[0])
    numbers = np.arange(count**2).reshape(count, count) % len(examples)
    rows = [
        np.concatenate([examples[i]["image"] for i in row], axis=1)
        for row in numbers.tolist()
    ]
    return np.concatenate(rows)[:side, :side]


def table(errors: dict[tuple[str, float], np.ndarray]) -> Table:
    """Mean, 99th percentile and maximum of the difference, by overlap."""
    made = Table("weights", "overlap", title="largest difference of a probability")
    for name in ("mean", "99th percentile", "maximum"):
        made.add_column(name, justify="right")
    for (name, overlap), error in errors.items():
        values = (error.mean(), np.quantile(error, 0.99), error.max())
        made.add_row(name, f"{overlap:g}", *(f"{x:.1e}" for x in values))
    return made


def distances(size: tuple[int, int], tile: int) -> np.ndarray:
    """Distance of each pixel to the nearest inner border of tiles without overlap."""
    sides = []
    for length in size:
        starts = inference.windows.tile_starts(length, tile, 0.0)
        borders = np.array([*starts[1:], *(x + tile for x in starts[:-1])])
        pixels = np.arange(length)[:, None] + 0.5
        sides.append(np.abs(pixels - borders).min(axis=1))
    return np.minimum(sides[0][:, None], sides[1][None, :])


def draw(errors: dict[tuple[str, float], np.ndarray], options: Options) -> None:
    """Draws the figure."""
    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    for (name, _), color in zip(WINDOWS.items(), COLORS, strict=False):
        own = [errors[name, x] for x in OVERLAPS]
        axes[0].plot(OVERLAPS, [x.mean() for x in own], "o-", color=color, label=name)
    axes[0].set(xlabel="overlap, fraction of a tile", ylabel="mean difference")
    axes[0].set(yscale="log", title="by overlap")
    axes[0].legend(frameon=False, fontsize=8)
    place = distances(errors["constant weights", 0.0].shape, options.tile)
    error = errors["constant weights", 0.0].ravel()
    bins = np.arange(0, options.tile // 2 + 1, 2)
    where = np.digitize(place.ravel(), bins) - 1
    means = [error[where == i].mean() for i in range(len(bins) - 1)]
    axes[1].plot(bins[:-1] + 1, means, color=COLORS[0])
    axes[1].set(xlabel="pixels to the border of a tile", yscale="log")
    axes[1].set(title="without overlap, by distance")
    for panel, overlap in zip(axes[2:], (0.0, 0.25), strict=True):
        error = errors["Gaussian weights", overlap]
        shown = panel.imshow(np.log10(error + 1e-6), cmap="magma", vmin=-6, vmax=0)
        panel.set(title=f"overlap {overlap:g}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[3], label="log10 of the difference")
    for panel in axes[:2]:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options))
