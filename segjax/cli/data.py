"""`segjax data list`, `show`, `prepare`, `import` and `colors`."""

import functools
import inspect
from collections.abc import Callable, Sequence

from rich.table import Table

from segjax import data, terminal
from segjax.cli import data_colors, data_import
from segjax.cli import flags as cli_flags
from segjax.errors import UserError

_DATASETS: dict[str, Callable[..., data.Dataset]] = {
    "digits": data.digits,
    "dsb2018": data.dsb2018,
    "camvid": data.camvid,
    "isbi2012": data.isbi2012,
    "drive": data.drive,
    "folder": data.folder,
    "instance_folder": data.instance_folder,
    "coco": data.coco,
}


def main(args: Sequence[str]) -> None:
    """Lists the data sets, prepares or imports one, or lists the colors of masks."""
    match list(args):
        case ["import", *rest]:
            data_import.main(rest)
        case ["show", *rest]:
            from segjax.cli import data_show  # It loads what trains.

            data_show.main(rest, _DATASETS)
        case ["colors", *rest]:
            data_colors.main(rest)
        case ["list"]:
            _list()
        case ["prepare", name, *flags] if name in _DATASETS:
            _prepare(name, flags)
        case ["prepare", *rest] if not {"-h", "--help"} & set(rest):
            got = rest[0] if rest else "none"
            raise UserError(
                f"segjax data prepare needs one of {', '.join(_DATASETS)}, got {got}."
            )
        case ["-h" | "--help"] | ["prepare", *_]:
            print(
                "usage: segjax data list\n"
                "       segjax data prepare NAME [--source DIR]\n"
                "       segjax data show DIR|NAME [--source DIR] [--out REPORT.html]\n"
                "       segjax data import FORMAT SOURCE --out DIR [--objects]\n"
                "       segjax data colors SOURCE [--out classes.csv]\n\n"
                f"NAME is one of {', '.join(_DATASETS)}.\n"
                f"FORMAT is one of {', '.join(data_import.FORMATS)}."
            )
        case _:
            raise UserError(
                "segjax data needs a subcommand: list, show DIR, prepare NAME, import "
                "FORMAT SOURCE or colors SOURCE."
            )


def _list() -> None:
    table = Table("name", "what")
    for name, load in _DATASETS.items():
        first = (inspect.getdoc(load) or "").split("\n\n")[0].replace("\n", " ")
        table.add_row(name, first)
    terminal.console().print(table)


def _delayed(function: Callable) -> Callable[..., Callable]:
    """Returns a function with the same flags that delays the call."""

    @functools.wraps(function)
    def later(*args, **options):
        return functools.partial(function, *args, **options)

    later.__annotations__ = {**function.__annotations__, "return": Callable}
    return later


def _prepare(name: str, flags: Sequence[str]) -> None:
    """Prepares a data set; its own keywords are the flags."""
    prog = f"segjax data prepare {name}"
    prepare = cli_flags.read(_delayed(_DATASETS[name]), flags, prog=prog)
    dataset = prepare()  # Outside of `read`, which keeps standard error to itself.
    table = Table("split", title=f"{dataset.name}: {len(dataset.classes)} classes")
    table.add_column("examples", justify="right")
    for split, examples in dataset.splits.items():
        table.add_row(split, f"{len(examples):,}")
    console = terminal.console()
    console.print(table)
    console.print(f"Classes: {', '.join(dataset.classes)}")
    console.print(f"Fingerprint: {dataset.fingerprint}", highlight=False)
