"""`segjax SUBCOMMAND ...`: each subcommand is a module with `main(args)`."""

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import pathlib
import platform
import sys
from collections.abc import Callable, Sequence

from segjax.cli import interrupt

_SUBCOMMANDS = {
    "train": "train an experiment script into a run folder",
    "seeds": "train several seeds at once, with mean, deviation and interval",
    "evaluate": "score a run's best or last checkpoint",
    "verify": "replay a run's first updates: do they repeat bit for bit?",
    "inspect": "rank a split's images by loss or gradient: which look mislabeled?",
    "predict": "images in, label maps and overlays out",
    "data": "list the data sets, or prepare one",
    "import": "torchvision's weights in, a folder to start from out",
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs the `segjax` command and exits the process."""
    with interrupt.handled() as handler:
        sys.exit(_main(list(sys.argv[1:] if args is None else args), handler))


def _main(args: list[str], handler: interrupt.Handler) -> int:
    subcommand, *rest = args or ["--help"]
    if subcommand in ("-h", "--help"):
        print(_usage())
        return 0
    if subcommand == "--version":
        print(_version())
        return 0
    if subcommand == "--tyro-print-completion":
        from segjax.cli import completion

        shell = rest[0] if rest else ""
        return _guarded(lambda: completion.print_script(shell), handler)
    if subcommand not in _SUBCOMMANDS:
        near = difflib.get_close_matches(subcommand, _SUBCOMMANDS, 1)
        hint = (
            f"Perhaps you meant {near[0]}" if near else f"Try {', '.join(_SUBCOMMANDS)}"
        )
        print(
            f"error: segjax has no subcommand {subcommand!r}. {hint}.", file=sys.stderr
        )
        return 2
    # A subcommand's module imports what it needs: `segjax data list` needs no
    # optimizer.
    module = (
        "import_" if subcommand == "import" else subcommand
    )  # A keyword names no module.
    work = importlib.import_module(f"segjax.cli.{module}").main
    return _guarded(lambda: work(rest), handler)


def run(build: Callable, args: Sequence[str] | None = None) -> None:
    """Trains an experiment from its own script, like `segjax train SCRIPT ...`.

    Args:
        build: The script's function `experiment(*, ...) -> train.Experiment`.
        args: The flags; those of the process unless given.
    """
    from segjax.cli import train

    script = pathlib.Path(inspect.getfile(build))
    flags = list(sys.argv[1:] if args is None else args)
    prog = f"python {sys.argv[0]}"
    with interrupt.handled() as handler:
        work = functools.partial(train.train, build, script, flags, prog=prog)
        sys.exit(_guarded(work, handler))


def _guarded(work: Callable[[], None], handler: interrupt.Handler) -> int:
    from segjax.cli import cluster, errors, process

    process.keep_compiled_programs()
    process.keep_freed_memory()
    process.run_one_program_at_a_time()
    handler.loading = False
    return cluster.run_or_exit(lambda: errors.exit_code(work))


def _version() -> str:
    """Read from metadata, since JAX takes long to import."""
    from segjax import __version__

    jax = importlib.metadata.version("jax")
    return f"segjax {__version__} (jax {jax}, Python {platform.python_version()})"


def _usage() -> str:
    subcommands = "\n".join(
        f"  {subcommand:<10} {text}" for subcommand, text in _SUBCOMMANDS.items()
    )
    return (
        f"usage: segjax SUBCOMMAND ...\n\n{subcommands}\n\n"
        f"segjax SUBCOMMAND --help says more. Start with\n"
        f"  segjax train experiments/digits_unet.py"
    )


if __name__ == "__main__":
    main()
