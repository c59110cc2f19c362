"""Shell completion of `segjax`: subcommands, their flags, and paths."""

import contextlib
import dataclasses
import pathlib
from typing import Annotated, Any, Union

import tyro

from segjax.cli import (
    calibrate,
    compare,
    evaluate,
    flags,
    import_,
    inspect,
    predict,
    runs,
    seeds,
    sweep,
    train,
    verify,
)
from segjax.errors import UserError

_SHELLS = ("bash", "zsh", "fish", "tcsh")
_FLAGS = {
    "train": ("script", train.TrainOptions),
    "seeds": ("script", seeds.SeedsOptions),
    "sweep": ("script", sweep.SweepOptions),
    "compare": ("run", compare.CompareOptions),
    "evaluate": ("run", evaluate.EvaluateOptions, runs.TrustOptions),
    "verify": ("run", verify.VerifyOptions, runs.TrustOptions),
    "inspect": ("run", inspect.InspectOptions, runs.TrustOptions),
    "predict": ("run", predict.PredictOptions),
    "calibrate": ("run", calibrate.CalibrateOptions, runs.TrustOptions),
    "import": ("checkpoint", import_.ImportOptions),
    "data": ("action",),
}
"""By subcommand, its first argument and its flags."""
_PATHS = """
# Where nothing else fits, the name of a file does.
_segjax() { _tyro_segjax "$@"; [ -n "${COMPREPLY[*]}" ] || COMPREPLY=(); }
complete -o default -F _segjax segjax"""


def print_script(shell: str) -> None:
    """Prints the script by which a shell completes `segjax`, as tyro writes it.

    The flags of an experiment are not in it: they are known once its script is loaded.

    Args:
        shell: bash, zsh, fish or tcsh.

    Raises:
        ValueError: If it is another shell.
    """
    if shell not in _SHELLS:
        raise UserError(
            f"--tyro-print-completion needs one of {', '.join(_SHELLS)}, got "
            f"{shell or 'none'}. Name your shell."
        )
    commands: Any = Union[tuple(map(_subcommand, _FLAGS))]  # noqa: UP007
    args = ["--tyro-print-completion", shell]
    with contextlib.suppress(SystemExit):  # By which tyro ends when it has printed.
        flags.read(commands, args, prog="segjax")
    if shell == "bash":
        print(_PATHS)


def _subcommand(name: str) -> Any:
    """What tyro reads as a subcommand: a path, then flags."""
    path, *options = _FLAGS[name]
    fields: list[tuple[str, Any]] = [(path, tyro.conf.Positional[pathlib.Path])]
    fields += [(kind.__name__, tyro.conf.OmitArgPrefixes[kind]) for kind in options]
    command = dataclasses.make_dataclass(f"{name}_command", fields)
    return Annotated[command, tyro.conf.subcommand(name)]
