"""Random access to the records of a prepared data set."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import tensorflow_datasets as tfds

from segjax.data.builders import base, packing
from segjax.errors import UserError


class Examples(Sequence[dict[str, Any]]):
    """Random access to the examples of one split; cheap to pickle.

    Only the path of the files is pickled: each worker process opens them when it first
    reads.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        self._directory = os.fspath(directory)
        self._split = split
        self._source: Any = None
        self._length: int | None = None

    def _open(self) -> Any:
        if self._source is None:
            with _blaming(self._directory):
                self._source = self._opened()
        return self._source

    def _opened(self) -> Any:
        builder: Any = tfds.builder_from_directory(self._directory)
        features = builder.info.features
        raw = {
            key: tfds.decode.SkipDecoding()
            for key in base.PIXELS
            if key in features and isinstance(features[key], tfds.features.Image)
        }
        return builder.as_data_source(self._split, decoders=raw)

    def __len__(self) -> int:
        if self._length is None:
            source = self._open()
            with _blaming(self._directory):
                self._length = len(source)
        return self._length

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns an example: image [H, W, K], label [H, W], as stored, name, ..."""
        example = self._stored(index)
        with _blaming(self._directory):
            for key in base.PIXELS:
                if key in example:
                    with _naming(example, key):
                        example[key] = packing.unpack(example[key])
            if example["image"].ndim == 2:
                example["image"] = example["image"][..., None]
        return example

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Reads (height, width) of an example from the header of its image."""
        example = self._stored(index)
        with _blaming(self._directory), _naming(example, "image"):
            return packing.unpacked_size(example["image"])

    def name(self, index: SupportsIndex) -> str:
        """Reads the name of an example, without decoding its image."""
        return self._stored(index)["name"]

    def _stored(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns an example whose maps are still encoded."""
        place = index.__index__()
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self!r} has no example {place}.")
        source = self._open()
        with _blaming(self._directory):
            example = dict(source[place % len(self)])
            return example | {"name": example["name"].decode()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Examples) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[str, str]:
        return self._directory, self._split

    def __repr__(self) -> str:
        return f"Examples({self._directory!r}, {self._split!r}, {len(self)} examples)"


def damaged(directory: str | os.PathLike, reason: str) -> str:
    """Returns the message for a damaged prepared folder."""
    return (
        f"{reason}. The prepared data in {os.fspath(directory)} are damaged: delete "
        f"that folder, and they will be prepared again"
    )


@contextlib.contextmanager
def _blaming(directory: str) -> Iterator[None]:
    """Turns exceptions of TFDS and decoders into one line that names the folder."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].replace(f"{directory}/", "")[:160].rstrip(".")
        raise UserError(damaged(directory, reason)) from error


@contextlib.contextmanager
def _naming(example: dict[str, Any], key: str) -> Iterator[None]:
    """Adds the example and the map to the messages of decoders."""
    stored = packing.form(example[key])
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"{example['name']}: the {stored} of its {key} is corrupt "
            f"({type(error).__name__})"
        ) from error
