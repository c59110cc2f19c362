"""`segjax SUBCOMMAND ...`: each subcommand is a module with `main(args)`.

What takes time to import is imported where it is used: before `interrupt.handled`,
Ctrl-C ends in a traceback.
"""

import contextlib
import functools
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from segjax.cli import interrupt

_SUBCOMMANDS = {
    "train": "train on your images (--data DIR) or by a script, into a run folder",
    "seeds": "train several seeds at once, with mean, deviation and interval",
    "sweep": "search settings by training many times (--search name=low..high)",
    "compare": "runs side by side: means over seeds, and which differences are real",
    "evaluate": "score a run's best or last checkpoint",
    "verify": "replay a run's first updates: do they repeat bit for bit?",
    "inspect": "rank a split's images by loss or gradient: which look mislabeled?",
    "predict": "images in, label maps and overlays out",
    "export": "a run's model in, one file that runs without segjax out",
    "serve": "a page on this machine to try a run or an exported file on",
    "calibrate": "fit a temperature, so that probabilities mean what they say",
    "data": "list, prepare or import data sets",
    "import": "torchvision's weights in, a folder to start from out",
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs the `segjax` command and exits the process."""
    with interrupt.handled() as handler:
        code = _main(list(sys.argv[1:] if args is None else args), handler)
        _exit(code, handler, alone=args is None)


def _exit(code: int, handler: interrupt.Handler, *, alone: bool) -> None:
    """Exits; immediately if the command was interrupted in its own process.

    Otherwise threads of libraries print errors while Python exits, and a second Ctrl-C
    ends in a traceback.
    """
    if alone and handler.interrupted and code == interrupt.EXIT_CODE:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _main(args: list[str], handler: interrupt.Handler) -> int:
    subcommand, *rest = args or ["--help"]
    if subcommand in ("-h", "--help"):
        return _print(_usage())
    if subcommand == "--version":
        return _print(_version())
    if subcommand == "--tyro-print-completion":
        from segjax.cli import completion

        shell = rest[0] if rest else ""
        return _guarded(lambda: completion.print_script(shell), handler)
    if subcommand not in _SUBCOMMANDS:
        import difflib

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


def _print(text: str) -> int:
    """Prints a text without importing a library, unless standard output is full."""
    try:
        print(text, flush=True)
    except OSError:
        from segjax.cli import errors

        # It fails again, and is reported as in other commands.
        return errors.exit_code(lambda: print(text, flush=True))
    return 0


def run(build: Callable, args: Sequence[str] | None = None) -> None:
    """Trains an experiment from its own script, like `segjax train SCRIPT ...`.

    Args:
        build: The script's function `experiment(*, ...) -> train.Experiment`.
        args: The flags; those of the process unless given.
    """
    import inspect

    from segjax.cli import train

    script = pathlib.Path(inspect.getfile(build))
    flags = list(sys.argv[1:] if args is None else args)
    prog = f"python {sys.argv[0]}"
    with interrupt.handled() as handler:
        work = functools.partial(train.train, build, script, flags, prog=prog)
        _exit(_guarded(work, handler), handler, alone=args is None)


def _guarded(work: Callable[[], None], handler: interrupt.Handler) -> int:
    from segjax import memory
    from segjax.cli import cluster, errors, process
    from segjax.files import orbax

    process.keep_compiled_programs()
    memory.keep_freed_memory()
    memory.use_large_pages()
    process.run_one_program_at_a_time()
    orbax.silence_failed_writers()
    handler.loading = False
    return cluster.run_or_exit(lambda: errors.exit_code(work))


def _version() -> str:
    """Read from metadata, since JAX takes long to import."""
    import importlib.metadata
    import platform

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
        f"  segjax train --data DIR --run runs/mine    (DIR/images and DIR/masks)\n"
        f"  segjax predict runs/mine photo.jpg --out predictions"
    )


if __name__ == "__main__":
    main()
