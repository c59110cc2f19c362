"""Reading windows of large TIFF files, of which only parts are in memory."""

import collections
import mmap
import pathlib
from types import TracebackType
from typing import Any

import numpy as np
import tifffile

from segjax.errors import UserError
from segjax.files import images, limits, tiff

_CACHE_BYTES = 2**27
_MAX_SEGMENT_BYTES = 2**26


class TiffWindows:
    """An image [H, W, K] in a TIFF file: `file[y0:y1, x0:x1]` reads a window.

    Decoded tiles are cached, up to 128 MB. Use as a context manager.

    Attributes:
        shape: (H, W, K).
        dtype: The dtype of the pixels.
    """

    def __init__(self, path: pathlib.Path):
        """Opens a file.

        Args:
            path: One image with interleaved channels, in tiles or strips of at most
                64 MB; BigTIFF as well. It is not rotated by its orientation tag.

        Raises:
            ValueError: If the file is broken, or not of this kind.
        """
        self._where = str(path)
        try:
            with open(path, "rb") as file, _mapped(file) as content:
                self._num_pages = tiff.count_pages(content)
            self._file = tifffile.TiffFile(path, _multifile=False)
        except UserError:
            raise
        except OSError:
            raise
        except Exception as error:  # tifffile raises exceptions of many types.
            raise images.broken(self._where, b"", error) from error
        page: Any = self._file.pages.first
        self._page = page
        try:
            self._check(page)
        except BaseException:
            self._file.close()
            raise
        self.shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        self.dtype = np.dtype(page.dtype)
        self._cache: collections.OrderedDict[int, np.ndarray] = (
            collections.OrderedDict()
        )
        self._cached = 0

    def __enter__(self) -> "TiffWindows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Reads [h, w, K]; bounds beyond the image are clipped, as in NumPy.

        Raises:
            ValueError: If the file is damaged there.
        """
        (y0, y1, _), (x0, x1, _) = (
            part.indices(n) for part, n in zip(window, self.shape, strict=False)
        )
        height, width = self._segment
        made = np.zeros((max(0, y1 - y0), max(0, x1 - x0), self.shape[2]), self.dtype)
        for row in range(y0 // height, -(-y1 // height)):
            for column in range(x0 // width, -(-x1 // width)):
                pixels = self._decoded(row * self._across + column)
                top, left = row * height, column * width
                ys = max(y0, top), min(y1, top + pixels.shape[0])
                xs = max(x0, left), min(x1, left + pixels.shape[1])
                made[ys[0] - y0 : ys[1] - y0, xs[0] - x0 : xs[1] - x0] = pixels[
                    ys[0] - top : ys[1] - top, xs[0] - left : xs[1] - left
                ]
        return made

    @property
    def _segment(self) -> tuple[int, int]:
        """(height, width) of tiles or strips."""
        page = self._page
        if page.is_tiled:
            return page.tilelength, page.tilewidth
        return page.rowsperstrip, page.imagewidth

    @property
    def _across(self) -> int:
        return -(-self.shape[1] // self._segment[1])

    def _decoded(self, index: int) -> np.ndarray:
        """Returns tile or strip `index`, cropped to the image, [h, w, K]."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        try:
            pixels = self._decode(index)
        except Exception as error:
            raise images.broken(self._where, b"", error) from error
        self._cache[index] = pixels
        self._cached += pixels.nbytes
        while self._cached > _CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _decode(self, index: int) -> np.ndarray:
        page, (height, width) = self._page, self._segment
        row, column = divmod(index, self._across)
        shape = (
            min(height, self.shape[0] - row * height),
            min(width, self.shape[1] - column * width),
            self.shape[2],
        )
        count = page.databytecounts[index]
        if not count or not page.dataoffsets[index]:  # Sparse: never written.
            return np.full(shape, page.nodata, self.dtype)
        handle = self._file.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(count)
        if len(data) != count:
            raise UserError(f"{len(data)} of {count} bytes of tile {index}")
        decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        if decoded is None:
            return np.full(shape, page.nodata, self.dtype)
        pixels = decoded.reshape(decoded.shape[-3:])[: shape[0], : shape[1]]
        if pixels.shape != shape:
            raise UserError(f"a tile of {list(pixels.shape)} instead of {list(shape)}")
        return pixels

    def _check(self, page: Any) -> None:
        kinds = (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.RGB,
        )
        planar = page.samplesperpixel > 1 and page.planarconfig != 1
        tag = page.tags.get(tiff.ORIENTATION)
        turned = tag is not None and tag.value != 1
        depth = getattr(page, "imagedepth", 1)
        fits = page.photometric in kinds and not planar and not turned and depth == 1
        if self._num_pages != 1 or page.dtype is None or not fits:
            raise UserError(
                f"{self._where} cannot be read in windows: needed one page, gray or "
                f"RGB, with interleaved channels, upright; save it so, or cut it into "
                f"images."
            )
        images.check_size(
            (page.imagelength, page.imagewidth), self._where, limits.WINDOWED_PIXELS
        )
        height, width = self._segment
        nbytes = min(height, page.imagelength) * width * page.samplesperpixel
        if nbytes * page.dtype.itemsize > _MAX_SEGMENT_BYTES:
            raise UserError(
                f"{self._where} has tiles of {width}x{height} pixels: needed at most "
                f"{_MAX_SEGMENT_BYTES:,} bytes; save it in tiles, such as "
                f"tifffile.imwrite(..., tile=(512, 512))."
            )


def _mapped(file: Any) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
