"""Windows of TIFF files equal the whole image, and memory is bounded."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile

from segjax.files.tiff_windows import TiffWindows

WINDOWS = [
    np.s_[0:70, 0:90],
    np.s_[3:4, 5:6],
    np.s_[30:64, 17:81],
    np.s_[60:500, 80:500],
]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 32)},
        {"tile": (32, 16), "bigtiff": True, "compression": "zlib"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 9, "compression": "zlib", "predictor": True},
        {"tile": (16, 16), "byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_windows_equal_the_whole(tmp_path, options, channels, dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (70, 90, channels)).astype(dtype)
    if dtype == np.float32 and options.get("predictor"):
        options = options | {"predictor": False}  # It would need imagecodecs.
    stored = image[..., 0] if channels == 1 else image
    photometric = "rgb" if channels == 3 else "minisblack"
    if channels == 5:
        options = options | {"planarconfig": "contig"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric=photometric, **options)
    with TiffWindows(path) as file:
        assert file.shape == (70, 90, channels)
        assert file.dtype == dtype
        for window in WINDOWS:
            np.testing.assert_array_equal(file[window], image[window])


def test_tiles_that_were_never_written_are_zero(tmp_path):
    path = tmp_path / "sparse.tif"
    write_sparse(path, 200, tile=64, square=(130, 70))
    with TiffWindows(path) as file:
        got = file[0:200, 0:200]
    want = np.zeros((200, 200, 1), np.uint8)
    want[128:192, 64:128] = 200
    np.testing.assert_array_equal(got, want)


def write_sparse(path, side, *, tile, square):
    """A tiled BigTIFF of zeros, with one tile of 200, the one that holds a pixel."""
    across = -(-side // tile)
    wanted = square[0] // tile * across + square[1] // tile

    def tiles():
        for i in range(across**2):
            value = 200 if i == wanted else 0
            # tifffile reads the shape of tiles from the first one.
            wants = i in (0, wanted)
            yield np.full((tile, tile), value, np.uint8) if wants else None

    tifffile.imwrite(
        path,
        tiles(),
        shape=(side, side),
        dtype=np.uint8,
        tile=(tile, tile),
        bigtiff=True,
        compression="zlib",
    )


def test_files_that_cannot_be_read_in_windows(tmp_path):
    path = tmp_path / "a.tif"
    image = np.zeros((40, 50, 3), np.uint8)
    for options, words in (
        ({"planarconfig": "separate", "photometric": "rgb"}, "interleaved"),
        ({"extratags": [(274, "H", 1, 6)], "photometric": "rgb"}, "upright"),
    ):
        stored = image.transpose(2, 0, 1) if "planarconfig" in options else image
        tifffile.imwrite(path, stored, **options)
        with pytest.raises(ValueError, match=words):
            TiffWindows(path)
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match="needed one page"):
        TiffWindows(path)
    tifffile.imwrite(path, np.zeros((9000, 9000), np.uint8), rowsperstrip=9000)
    with pytest.raises(ValueError, match="tiles of 9000x9000"):
        TiffWindows(path)
    tifffile.imwrite(path, image, photometric="rgb", tile=(16, 16))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="is broken"), TiffWindows(path) as file:
        file[0:40, 0:50]
    path.write_bytes(b"II*\0\xff")
    with pytest.raises(ValueError, match="is broken"):
        TiffWindows(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is broken"):
        TiffWindows(path)


SMALL = """
import resource, sys
import numpy as np
from segjax import inference
from segjax.files.tiff_windows import TiffWindows

def predict(images):
    bright = images[..., :1].astype(np.float32) / 255
    return np.concatenate([1 - bright, bright], -1)

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

list(inference.bands(predict, np.zeros((300, 300, 1), np.uint8), tile=256))
before, counts = memory(), np.zeros(2, int)
with TiffWindows(sys.argv[1]) as file:
    for _, probs in inference.bands(predict, file, tile=256):
        counts += np.bincount(inference.labels(probs).ravel(), minlength=2)
print(*counts, memory() - before)
"""


def test_memory_of_a_large_file_is_bounded(tmp_path):
    """16 million pixels, whose probabilities alone have 128 MB."""
    path = tmp_path / "sparse.tif"
    write_sparse(path, 4000, tile=512, square=(2000, 2000))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SMALL), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    zeros, ones, extra = done.stdout.split()
    assert int(zeros) + int(ones) == 4000**2
    assert int(ones) == 512**2
    assert float(extra) < 60
