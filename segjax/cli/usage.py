"""The help of a subcommand that is called without its run or file."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from segjax.cli import flags


def print_if_asked(
    args: Sequence[str], prog: str, *options: type, note: str = ""
) -> None:
    """Prints the flags of a subcommand and exits with 0, if --help comes first.

    Args:
        args: The arguments after the subcommand. If they begin with a run or a file,
            nothing is printed, because its own flags may be added.
        prog: The command, such as `segjax evaluate RUN`.
        *options: Dataclasses of the subcommand's own flags.
        note: A sentence about the arguments that are not flags.
    """
    asks = bool({"-h", "--help"} & set(args))
    if not asks or not args[0].startswith("-"):
        return
    own: list[tuple[str, Any]] = [
        (kind.__name__, Annotated[Any, tyro.conf.arg(constructor=kind, name="")])
        for kind in options
    ]
    command = dataclasses.make_dataclass("command", own)
    command.__doc__ = textwrap.fill(note or f"Flags of `{prog}`.", 80)
    flags.read(command, ["--help"], prog=prog)


OF_EXPERIMENT = (
    "Flags of the run's experiment, such as --source, are accepted too, and listed "
    "where RUN comes before --help."
)
