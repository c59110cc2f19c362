"""The records of a prepared data set, read by position."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import PIL.Image
import tensorflow_datasets as tfds

from segjax.data.builders import base


class Examples(Sequence[dict[str, Any]]):
    """Random access to the examples of one split; cheap to pickle.

    Only the place of the files is pickled: each worker process opens them itself,
    the first time it reads.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        self._directory = os.fspath(directory)
        self._split = split
        self._source: Any = None
        self._length: int | None = None

    def _open(self) -> Any:
        if self._source is None:
            builder: Any = tfds.builder_from_directory(self._directory)
            features = builder.info.features
            raw = {
                key: tfds.decode.SkipDecoding()
                for key in base.PIXELS
                if key in features
            }
            self._source = builder.as_data_source(self._split, decoders=raw)
        return self._source

    def __len__(self) -> int:
        if self._length is None:
            self._length = len(self._open())
        return self._length

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """One example. image uint8 [H, W, 3], label uint8 [H, W], name str, ..."""
        example = self._stored(index)
        for key in base.PIXELS:
            if key in example:
                with _naming(example["name"], key):
                    example[key] = base.from_png(example[key])
        return example

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """(height, width) of an example, from the header of its image alone."""
        example = self._stored(index)
        png = io.BytesIO(example["image"])
        with _naming(example["name"], "image"), PIL.Image.open(png) as image:
            return image.height, image.width

    def _stored(self, index: SupportsIndex) -> dict[str, Any]:
        """An example whose images are PNG files still."""
        place = index.__index__()
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self!r} has no example {place}.")
        example = dict(self._open()[place % len(self)])
        return example | {"name": example["name"].decode()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def __repr__(self) -> str:
        return f"Examples({self._directory!r}, {self._split!r}, {len(self)} examples)"


@contextlib.contextmanager
def _naming(name: str, key: str) -> Iterator[None]:
    """Adds what Pillow's messages lack: which example, and which image of it."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name}: the PNG file of its {key} is broken ({type(error).__name__})"
        ) from error
