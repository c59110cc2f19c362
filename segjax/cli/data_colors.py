"""`segjax data colors SOURCE`: lists the colors of masks, and writes them as CSV."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import tyro
from rich.table import Table

from segjax import terminal
from segjax.cli import flags
from segjax.data.builders import colors, pairing, sources
from segjax.errors import UserError
from segjax.files import writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Lists the colors of masks with their shares of all pixels.

    Attributes:
        source: A folder of images and masks in color.
        out: A CSV file to write, with one row r,g,b,name for each color; edit the names
            (void, ignore and unlabeled are no classes), and put it into the source as
            classes.csv, or pass it as --colors.
    """

    source: Annotated[pathlib.Path, tyro.conf.Positional]
    out: pathlib.Path | None = None


def main(args: Sequence[str]) -> None:
    """Lists the colors of masks."""
    options: _Options = flags.read(_Options, args, prog="segjax data colors")
    path = sources.existing(options.source, "a folder of images and masks")
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    found = pairing.find(tree, pairing.SEMANTIC, needs="images/ and masks/")
    counts = colors.count(tree, [pair.mask for pair in found.pairs])
    console = terminal.console(soft_wrap=True)
    console.print(_table(counts, len(found.pairs)))
    if options.out is not None:
        if options.out.exists():
            raise UserError(
                f"{options.out} exists: needed a new file to write to; choose another."
            )
        writing.write_bytes(options.out.absolute(), _csv(counts))
        console.print(f"Written: {options.out}. Name the classes in it.")


def _table(counts: Mapping[int, int], num_masks: int) -> Table:
    table = Table("class", "color", title=f"Colors of {num_masks} masks")
    table.add_column("pixels", justify="right")
    table.add_column("share", justify="right")
    total = sum(counts.values())
    for number, (color, pixels) in enumerate(counts.items()):
        share = f"{100 * pixels / total:.2f} %"
        table.add_row(str(number), colors.shown(color), f"{pixels:,}", share)
    return table


def _csv(counts: Mapping[int, int]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["r", "g", "b", "name"])
    for color in counts:
        red, green, blue = color >> 16, color >> 8 & 255, color & 255
        rows.writerow([red, green, blue, f"color {colors.shown(color)}"])
    return text.getvalue().encode()
