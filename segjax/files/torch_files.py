"""Reading tensors from files of `torch.save`, without PyTorch.

Both formats are read: zip archives (since PyTorch 1.6), and streams of pickles.
"""

import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from segjax.errors import UserError
from segjax.files import pickled

_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_MAX_AXES = 32
_DTYPES: dict[str, np.dtype] = {
    "Bool": np.dtype(np.bool_),
    "Byte": np.dtype(np.uint8),
    "Char": np.dtype(np.int8),
    "Short": np.dtype(np.int16),
    "Int": np.dtype(np.int32),
    "Long": np.dtype(np.int64),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Float": np.dtype(np.float32),
    "Double": np.dtype(np.float64),
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers that tensors share: `count` of them, under a key of the file."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def parse(content: bytes) -> dict[str, np.ndarray]:
    """Reads a state dict: arrays by name; bfloat16 as in `ml_dtypes`.

    Args:
        content: What `torch.save(model.state_dict(), file)` wrote.

    Raises:
        ValueError: If it needs code to be read, is damaged, or is not a dictionary of
            tensors. The message completes a sentence about the file.
    """
    read = _read_zip if content[:4] == b"PK\x03\x04" else _read_stream
    value, load = read(content)
    if not _is_state(value):
        found = type(value).__name__
        if isinstance(value, Mapping):
            found = f"a dictionary of {', '.join(map(str, list(value)[:5]))}"
        raise UserError(
            f"it needs to hold a state dict, tensors by name, and holds {found}; save "
            f"model.state_dict() instead"
        )
    loaded = {x.storage.key: x.storage for x in value.values()}
    numbers = {key: load(storage) for key, storage in loaded.items()}
    return {name: _array(name, x, numbers[x.storage.key]) for name, x in value.items()}


Load = Callable[[_Storage], np.ndarray]


def _read_zip(content: bytes) -> tuple[Any, Load]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = [x for x in archive.namelist() if x.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError("it is a zip archive, but not one of torch.save")
        folder = names[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise UserError("its numbers are big-endian; save it on another machine")
        value = pickled.read(io.BytesIO(_stored(archive, names[0])), *_parts())
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"it is a damaged zip archive ({error})") from error

    def load(storage: _Storage) -> np.ndarray:
        try:
            data = _stored(archive, f"{folder}data/{storage.key}")
        except (zipfile.BadZipFile, EOFError, KeyError) as error:
            raise UserError(f"its storage {storage.key} is damaged") from error
        return _numbers(data, storage)

    return value, load


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UserError("it is compressed, which torch.save does not do")
    return archive.read(name)


def _read_stream(content: bytes) -> tuple[Any, Load]:
    file = io.BytesIO(content)
    known, persistent = _parts()
    none: dict[str, Any] = {}
    head = [pickled.read(file, none, persistent) for _ in range(3)]
    little = isinstance(head[2], dict) and head[2].get("little_endian") is True
    if head[:2] != [_MAGIC, _STREAM_VERSION] or not little:
        raise UserError("it was not written by torch.save on a little-endian machine")
    value = pickled.read(file, known, persistent)
    if not _is_state(value):
        return value, lambda storage: _numbers(b"", storage)
    keys = pickled.read(file, none, persistent)
    if not isinstance(keys, list):
        raise UserError("it has no list of its storages")
    # Numbers follow each other in the order of the keys, each after its count.
    storages = {x.storage.key: x.storage for x in value.values()}
    data = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if not isinstance(key, str) or key not in storages:
            raise UserError("it has numbers of something that is not a tensor")
        if count != storages[key].count:
            raise UserError(f"its storage {key} has {count} numbers, unlike its tensor")
        data[key] = file.read(count * storages[key].dtype.itemsize)
    return value, lambda storage: _numbers(data.get(storage.key, b""), storage)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(x, _Tensor) for name, x in value.items()
    )


def _numbers(data: bytes, storage: _Storage) -> np.ndarray:
    if len(data) != storage.count * storage.dtype.itemsize:
        raise UserError(
            f"its storage {storage.key} needs {storage.count} numbers of "
            f"{storage.dtype} and has {len(data)} bytes"
        )
    return np.frombuffer(data, storage.dtype)


def _parts() -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """What pickles of state dicts name, and their persistent identifiers."""
    known: dict[str, Any] = {
        "collections.OrderedDict": lambda: {},
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
    }
    dtypes = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}
    return known | dtypes, _storage


def _storage(identifier: Any) -> _Storage:
    kind, dtype, key, _, count, *view = identifier
    plain = kind == "storage" and isinstance(dtype, np.dtype) and isinstance(key, str)
    if not plain or any(x is not None for x in view):
        raise UserError("it refers to something that is not the numbers of a tensor")
    return _Storage(key, dtype, _whole(count))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a shape and strides are tuples")
    sizes, steps = tuple(map(_whole, shape)), tuple(map(_whole, strides))
    if len(sizes) != len(steps) or len(sizes) > _MAX_AXES:
        raise ValueError("needed a stride for each axis")
    return _Tensor(storage, _whole(offset), sizes, steps)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a whole number")
    return value


def _array(name: str, tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Copies a tensor out of its storage, within its bounds."""
    size = math.prod(tensor.shape)
    ends = (
        (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    # An expanded tensor, with strides of 0, could be of any size.
    if size and (tensor.offset + sum(ends) >= len(numbers) or size > len(numbers)):
        raise UserError(f"its tensor {name} exceeds its storage")
    if not size:
        return np.zeros(tensor.shape, numbers.dtype)
    steps: Sequence[int] = [step * numbers.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, steps, writeable=False
    )
    return view.copy()
