"""Medical volumes: NIfTI images and labels, slice by slice."""

import dataclasses
import functools
import hashlib
import io
import json
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segjax import optional
from segjax.data import stored
from segjax.data.builders.sources import Tree
from segjax.data.formats.items import Annotated, Drawn, Item
from segjax.errors import UserError
from segjax.files import limits

_IMAGES, _LABELS = ("imagesTr", "images"), ("labelsTr", "labels", "masks")
_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_HEADER_BYTES = 348
_AXES = ("sagittal", "coronal", "axial")
_SHARES = (0.5, 99.5)
"""Percentiles of a volume that become 0 and 1 without a window."""


def nifti(
    tree: Tree, *, axis: int = 2, window: tuple[float, float] | None = None
) -> Annotated:
    """Reads volumes with labels as slices.

        source/imagesTr/a.nii.gz        source/labelsTr/a.nii.gz  (Medical Decathlon)
        source/imagesTr/a_0000.nii.gz   source/labelsTr/a.nii.gz  (nnU-Net; _0001, ...)
        source/images/a.nii             source/masks/a.nii
        source/dataset.json             (optional: the labels' names)

    Volumes are turned to the nearest canonical orientation. A slice has the patient's
    left at its left, and front or head at its top. All slices of a volume are in one
    split: a tenth of the volumes, and at least one, is for validation, as many for
    testing; with fewer than three volumes there are no splits. The spacing of voxels
    is not kept.

    Args:
        tree: The files.
        axis: The axis across slices: 0 sagittal, 1 coronal, 2 axial.
        window: Values that become 0 and 1 in the images, such as (-160, 240) Hounsfield
            units for organs in CT; by default the 0.5 and 99.5 percentiles of each
            volume and channel, as is usual for MRI.

    Returns:
        Images uint16 [H, W, K], one channel a file, or a volume's fourth axis.

    Raises:
        ValueError: If there are no volumes, one has no labels or labels of another
            size, or is broken; when it is drawn, if a label is not in dataset.json.
    """
    if axis not in (0, 1, 2):
        raise UserError(f"nifti needs an axis of 0, 1 or 2, got {axis}.")
    if window is not None and not window[0] < window[1]:
        raise UserError(f"nifti needs a window from low to high, got {list(window)}.")
    images, labels = _volumes(tree)
    names = _names(tree, labels)
    ids = {value: position for position, value in enumerate(names)}
    splits = _splits(sorted(labels))
    items, last = [], _LastVolumes()
    for name in sorted(labels):
        channels = tuple(sorted(images[name]))
        read = functools.partial(_load, tree, channels, labels[name], axis, window)
        load = functools.partial(last.get, name, read)
        shape = _shape(tree, labels[name])
        for number in range(shape[axis]):
            one = _Slice(load, number, ids, tree.shown(labels[name]))
            items.append(
                Item(
                    f"{name}/{number:04d}",
                    images[name][0],
                    splits[name],
                    one.draw,
                    pixels=one.pixels,
                )
            )
    return Annotated(
        tree, tuple(names.values()), tuple(items), _notes(tree, labels, axis, window)
    )


@dataclasses.dataclass(frozen=True)
class _Slice:
    """A slice of a volume, which is loaded when it is drawn."""

    load: Any
    number: int
    ids: Mapping[int, int]
    where: str

    def pixels(self) -> np.ndarray:
        """The image, uint16 [H, W, K]."""
        return self.load()[0][self.number]

    def draw(self, size: tuple[int, int]) -> Drawn:
        """The labels as class ids."""
        del size  # That of the image, which `_load` has compared.
        values = self.load()[1][self.number]
        label = np.zeros(values.shape, stored.label_dtype(len(self.ids)))
        for value in np.unique(values):
            if int(value) not in self.ids:
                raise UserError(
                    f"{self.where} has the label {value:g}, which dataset.json does "
                    f"not name: it has {', '.join(map(str, self.ids))}."
                )
            label[values == value] = self.ids[int(value)]
        return Drawn(label, None)


def _volumes(tree: Tree) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Finds the files of each volume: its channels and its labels, by name."""
    have = tree.folders("")
    folders = [
        next((f for f in kind if f in have), None) for kind in (_IMAGES, _LABELS)
    ]
    if None in folders:
        raise UserError(
            f"{tree.shown('')} needs imagesTr/ and labelsTr/, or images/ and masks/, "
            f"with .nii or .nii.gz files."
        )
    labels = {_stem(name): name for name in _files(tree, str(folders[1]))}
    images: dict[str, list[str]] = {}
    for name in _files(tree, str(folders[0])):
        stem = _stem(name)
        channel = re.sub(r"_\d{4}$", "", stem)
        owner = channel if stem not in labels and channel in labels else stem
        images.setdefault(owner, []).append(name)
    if not labels:
        raise UserError(f"{tree.shown(str(folders[1]))} has no .nii or .nii.gz file.")
    lone = sorted(images.keys() ^ labels.keys())
    if lone:
        file = labels.get(lone[0]) or images[lone[0]][0]
        raise UserError(
            f"{tree.shown(file)} has no partner in {folders[0]} and {folders[1]}: "
            f"needed an image and labels of one name; remove it, or add the other."
        )
    return images, labels


def _files(tree: Tree, folder: str) -> list[str]:
    return [name for name in tree.files(folder) if _SUFFIX.search(name)]


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name.rpartition("/")[2])


def _names(tree: Tree, labels: Mapping[str, str]) -> dict[int, str]:
    """Class names by label: of dataset.json, or of the labels that occur."""
    if "dataset.json" in tree.files(""):
        return _names_of_json(tree)
    values: set[int] = {0}
    for name in labels.values():
        volume = np.asanyarray(_image(tree, name).dataobj)
        values |= {int(v) for v in np.unique(_whole(volume, tree.shown(name)))}
    return {v: f"label {v}" if v else "background" for v in sorted(values)}


def _names_of_json(tree: Tree) -> dict[int, str]:
    """Reads {"0": "background"} (Decathlon) or {"background": 0} (nnU-Net)."""
    where = tree.shown("dataset.json")
    try:
        found = json.loads(tree.read("dataset.json", max_bytes=limits.TEXT_BYTES))
        pairs = [
            (int(value), key) if isinstance(value, int) else (int(key), str(value))
            for key, value in found["labels"].items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{where} needs labels such as {{"labels": {{"background": 0, "liver": '
            f"1}}}}, one number each; regions of several labels are not read."
        ) from error
    names = dict(sorted(pairs))
    if 0 not in names or min(names) < 0:
        raise UserError(f"{where} needs numbers from 0, background, got {list(names)}.")
    return names


def _splits(names: list[str]) -> dict[str, str]:
    """Divides volumes by a digest of their names."""
    if len(names) < 3:
        return dict.fromkeys(names, "")
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    held = max(1, round(len(names) / 10))
    splits = dict.fromkeys(names, "train")
    splits |= dict.fromkeys(order[:held], "validation")
    return splits | dict.fromkeys(order[held : 2 * held], "test")


def _notes(tree, labels, axis: int, window) -> tuple[str, ...]:
    count = len(labels)
    notes = [f"{count} volumes in {_AXES[axis]} slices; spacing is not kept"]
    if window is None:
        notes.append(
            f"each volume is scaled from its {_SHARES[0]} to its {_SHARES[1]} "
            f"percentile; for CT give --window LOW HIGH"
        )
    if count < 3:
        notes.append("too few volumes for splits: give --group '^[^/]+' to training")
    if "imagesTs" in tree.folders(""):
        notes.append("imagesTs has no labels and is left out")
    return tuple(notes)


class _LastVolumes:
    """Keeps the last two volumes: slices are drawn in order, by several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def get(
        self, name: str, load: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a volume and its labels, loaded once."""
        with self._lock:
            if name not in self._kept:
                while len(self._kept) > 1:
                    del self._kept[next(iter(self._kept))]
                self._kept[name] = load()
            return self._kept[name]


def _load(
    tree: Tree,
    images: tuple[str, ...],
    label: str,
    axis: int,
    window: tuple[float, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a volume as slices: uint16 [N, H, W, K], and labels [N, H, W]."""
    truth = _slices(_canonical(tree, label), axis)
    channels = []
    for name in images:
        volume = _slices(_canonical(tree, name), axis)
        if volume.shape[:3] != truth.shape[:3]:
            raise UserError(
                f"{tree.shown(name)} has {_shown(volume)} voxels, {tree.shown(label)} "
                f"has {_shown(truth)}: needed equal sizes."
            )
        volume = volume.reshape(*volume.shape[:3], -1)
        channels += [_scaled(volume[..., k], window) for k in range(volume.shape[-1])]
    if truth.ndim != 3:
        raise UserError(f"{tree.shown(label)} has 4 axes: needed labels of 3.")
    return np.stack(channels, axis=-1), _whole(truth, tree.shown(label))


def _slices(volume: np.ndarray, axis: int) -> np.ndarray:
    """[X, Y, Z, ...] to [N, H, W, ...], with front or head at the top."""
    moved = np.moveaxis(volume, axis, 0)
    return np.swapaxes(moved[:, :, ::-1], 1, 2)


def _scaled(volume: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    low, high = np.percentile(volume, _SHARES) if window is None else window
    if not low < high:  # A constant channel.
        return np.zeros(volume.shape, np.uint16)
    unit = (np.clip(volume, low, high) - low) / (high - low)
    return np.round(unit * 65535).astype(np.uint16)


def _whole(volume: np.ndarray, where: str) -> np.ndarray:
    if not np.array_equal(volume, np.round(volume)):
        raise UserError(f"{where} needs whole numbers as labels, and has fractions.")
    return volume


def _canonical(tree: Tree, name: str) -> np.ndarray:
    nibabel = _nibabel()
    image = nibabel.as_closest_canonical(_image(tree, name))
    volume = np.asanyarray(image.dataobj)
    if volume.dtype.kind not in "iuf" or not np.isfinite(volume).all():
        raise UserError(f"{tree.shown(name)} needs finite real numbers.")
    return volume.astype(np.float32, copy=False)


def _shape(tree: Tree, name: str) -> tuple[int, ...]:
    """The size along x, y and z after turning, from the header."""
    nibabel, where = _nibabel(), tree.shown(name)
    header = _header(_head(tree.read(name), where), where)
    turns = nibabel.io_orientation(header.get_best_affine())
    shape = header.get_data_shape()
    order = np.argsort(turns[:, 0])
    return tuple(int(shape[i]) for i in order)


def _image(tree: Tree, name: str) -> Any:
    """Opens a file within limits: at most as many bytes as its header says."""
    content, where = tree.read(name), tree.shown(name)
    header = _header(_head(content, where), where)
    voxels = np.prod([float(side) for side in header.get_data_shape()])
    size = int(header["vox_offset"]) + voxels * header.get_data_dtype().itemsize
    if size > limits.FILE_BYTES:
        raise UserError(
            f"{where} declares {size / 1e9:.1f} GB: needed at most "
            f"{limits.FILE_BYTES / 1e9:.1f} GB."
        )
    if content[:2] == b"\x1f\x8b":
        content = _inflated(content, int(size) + 1, where)
    if len(content) < size:
        raise UserError(
            f"{where} is truncated: it has {len(content)} of {size:.0f} bytes."
        )
    return _nibabel().Nifti1Image.from_bytes(content)


def _header(head: bytes, where: str) -> Any:
    nibabel = _nibabel()
    try:
        header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(head))
        shape = header.get_data_shape()
    except Exception as error:  # nibabel's own, struct's, ValueError...
        raise UserError(f"{where} is no NIfTI-1 file ({error}).") from error
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f"{where} has the size {list(shape)}: needed 3 or 4 axes.")
    return header


def _head(content: bytes, where: str) -> bytes:
    if content[:2] == b"\x1f\x8b":
        return _inflated(content, _HEADER_BYTES, where)
    return content[:_HEADER_BYTES]


def _inflated(content: bytes, most: int, where: str) -> bytes:
    """Decompresses at most so many bytes."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, most)
    except zlib.error as error:
        raise UserError(f"{where} is a broken gzip file ({error}).") from error


def _nibabel() -> Any:
    return optional.require("nibabel", extra="medical", purpose="NIfTI volumes")


def _shown(volume: np.ndarray) -> str:
    return "x".join(map(str, volume.shape))
