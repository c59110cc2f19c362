"""`segjax data import FORMAT SOURCE --out DIR`: other tools' annotations."""

import collections
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import tyro

from segjax import terminal
from segjax.cli import flags
from segjax.data import formats
from segjax.data.builders import sources
from segjax.errors import UserError

FORMATS: dict[str, Callable[..., formats.Annotated]] = {
    "coco": formats.coco,
    "labelme": formats.labelme,
    "cvat": formats.cvat,
    "yolo": formats.yolo,
    "voc": formats.pascal_voc,
    "cityscapes": formats.cityscapes,
    "ade20k": formats.ade20k,
    "nifti": formats.nifti,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Reads annotations of another tool and writes a plain folder.

    Attributes:
        format: The format of the annotations.
        source: The folder, or a zip of it.
        out: The folder to create: images/, masks/ and classes.txt, in train/,
            validation/ and test/ if the format has splits.
        objects: Writes annotations.json with all objects, for data.coco, instead of
            masks/.
        axis: Of nifti, the axis across slices: 0 sagittal, 1 coronal, 2 axial.
        window: Of nifti, the values that become black and white, such as -160 240 for
            organs in CT; by default percentiles of each volume.
    """

    format: Annotated[
        Literal[
            "coco", "labelme", "cvat", "yolo", "voc", "cityscapes", "ade20k", "nifti"
        ],
        tyro.conf.Positional,
    ]
    source: Annotated[pathlib.Path, tyro.conf.Positional]
    out: pathlib.Path
    objects: bool = False
    axis: int = 2
    window: tuple[float, float] | None = None


def main(args: Sequence[str]) -> None:
    """Converts annotations into a plain folder."""
    options: _Options = flags.read(_Options, args, prog="segjax data import")
    path = sources.existing(options.source, f"a folder or zip of {options.format}")
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    read = FORMATS[options.format]
    if options.format == "nifti":
        read = functools.partial(read, axis=options.axis, window=options.window)
    elif options.window is not None or options.axis != 2:
        raise UserError(f"--axis and --window are for nifti, not {options.format}.")
    found = read(tree)
    formats.write(found, options.out, objects=options.objects)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    counts = collections.Counter(item.split for item in found.items)
    splits = ", ".join(f"{n} {k}" for k, n in counts.items() if k)
    console = terminal.console(soft_wrap=True)
    console.print(
        f"Images: {len(found.items)}{f' ({splits})' if splits else ''}. "
        f"Classes: {len(found.classes)} ({', '.join(found.classes)})."
    )
    kind = "annotations.json" if options.objects else "masks"
    loader = "coco" if options.objects else "folder"
    console.print(
        f"Written: {options.out}, with images and {kind}. Look at it, then read it by "
        f'data.{loader}("{options.out}").'
    )
