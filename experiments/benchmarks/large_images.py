"""Memory and time of large images in tiles: an array, and a sparse tiled BigTIFF.

    python experiments/benchmarks/large_images.py

Networks are untrained, since memory and time do not depend on the weights. Memory is
that of the process at its highest, less what it had before the image was made, and
includes the image (as an array) and the label map.
"""

import argparse
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
import tifffile
from rich.progress import Progress

from segjax import inference, models, ops
from segjax.files.tiff_windows import TiffWindows
from segjax.forward import make_forward

TILE = 512


def main() -> None:
    """Predicts both images, and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--array", type=int, default=8192, help="side, 0 for none")
    parser.add_argument("--file", type=int, default=30_000, help="side, 0 for none")
    sides = parser.parse_args()
    if sides.array:
        unet = models.UNet(num_classes=3, widths=(16, 32, 64, 128))
        predict = prediction_function(unet, channels=3)
        before = memory()
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (sides.array, sides.array, 3), np.uint8)
        run("U-Net, array", predict, image, before)
    if sides.file:
        predict = prediction_function(models.SimpleCNN(num_classes=2), channels=1)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sparse.tif"
            write_sparse(path, sides.file)
            before = memory()
            with TiffWindows(path) as file:
                run("SimpleCNN, file", predict, file, before)


def prediction_function(model, *, channels: int) -> inference.PredictFn:
    """Compiles an untrained network for tiles."""
    tile = np.zeros((1, TILE, TILE, channels), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), tile / np.float32(255))
    predictor = inference.make_predictor(make_forward(model), variables)

    def predict(images):
        return np.stack([np.asarray(x) for x in predictor.batch(np.asarray(images))])

    predict(tile)
    return predict


def run(name: str, predict: inference.PredictFn, image, before: float) -> None:
    """Counts the labels of an image in tiles."""
    height, width = image.shape[:2]
    start, counts = time.perf_counter(), np.zeros(256, np.int64)
    labels = np.zeros((height, width), np.uint8)
    with Progress() as progress:
        task = progress.add_task(name, total=height)
        for first, probs in inference.bands(predict, image, tile=TILE):
            rows = inference.labels(probs)
            labels[first : first + len(rows)] = rows
            counts += np.bincount(rows.ravel(), minlength=256)
            progress.update(task, completed=first + len(rows))
    seconds = time.perf_counter() - start
    assert counts.sum() == height * width
    print(
        f"{name}, {width}x{height}: {memory() - before:.0f} MB extra, {seconds:.0f} s, "
        f"{height * width / seconds / 1e6:.2f} Mpixel/s"
    )


def write_sparse(path: pathlib.Path, side: int) -> None:
    """Writes a tiled BigTIFF in which one tile in a hundred was written."""
    tifffile.imwrite(
        path,
        sparse_tiles(ops.round_up(side, TILE) ** 2 // TILE**2),
        shape=(side, side),
        dtype=np.uint8,
        tile=(TILE, TILE),
        bigtiff=True,
        compression="zlib",
    )


def sparse_tiles(count: int) -> Iterator[np.ndarray | None]:
    """Yields `count` tiles, None for those that are not written."""
    rng = np.random.default_rng(0)
    for i in range(count):
        yield rng.integers(0, 256, (TILE, TILE), np.uint8) if i % 100 == 0 else None


def memory() -> float:
    """Highest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
