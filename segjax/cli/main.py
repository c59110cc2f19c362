"""`segjax VERB ...`: one file a verb, each with `main(args)`."""

import contextlib
import difflib
import functools
import importlib
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from segjax.cli import interrupt

_VERBS = {
    "train": "train an experiment script into a run folder",
    "seeds": "train several seeds at once, with mean, deviation and interval",
    "evaluate": "score a run's best or last checkpoint",
    "verify": "replay a run's first updates: do they repeat bit for bit?",
    "inspect": "rank a split's images by loss or gradient: which look mislabelled?",
    "predict": "images in, label maps and overlays out",
    "data": "list the data sets, or prepare one",
    "import": "torchvision's weights in, a folder to start from out",
}


def main(args: Sequence[str] | None = None) -> None:
    """The `segjax` command; ends the process with an exit code."""
    with interrupt.handled() as handler:
        code = _main(list(sys.argv[1:] if args is None else args), handler)
        _leave(code, handler, alone=args is None)


def _leave(code: int, handler: interrupt.Handler, *, alone: bool) -> None:
    """Ends the command, and at once where it was interrupted in a process of its own.

    Threads of libraries, which lost their work, would speak of it while Python ends,
    and a second Ctrl-C would end in a traceback.
    """
    if alone and handler.interrupted and code == interrupt.EXIT_CODE:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _main(args: list[str], handler: interrupt.Handler) -> int:
    verb, *rest = args or ["--help"]
    if verb in ("-h", "--help"):
        return _answer(_usage())
    if verb == "--version":
        from segjax import __version__

        return _answer(f"segjax {__version__}")
    if verb not in _VERBS:
        near = difflib.get_close_matches(verb, _VERBS, 1)
        hint = f"Perhaps you meant {near[0]}" if near else f"Try {', '.join(_VERBS)}"
        print(f"error: segjax has no verb {verb!r}. {hint}.", file=sys.stderr)
        return 2
    # A verb's module imports what it needs: `segjax data list` needs no optimizer.
    module = "import_" if verb == "import" else verb  # A keyword names no module.
    work = importlib.import_module(f"segjax.cli.{module}").main
    return _guarded(lambda: work(rest), handler)


def _answer(text: str) -> int:
    """Prints what needs no library, without the time to import one."""
    try:
        print(text, flush=True)
    except OSError:
        from segjax.cli import errors

        # It fails again, and there is said why.
        return errors.exit_code(lambda: print(text, flush=True))
    return 0


def run(build: Callable, args: Sequence[str] | None = None) -> None:
    """Trains an experiment from its own script: `segjax train SCRIPT ...`.

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
        _leave(_guarded(work, handler), handler, alone=args is None)


def _guarded(work: Callable[[], None], handler: interrupt.Handler) -> int:
    from segjax.cli import cluster, errors, process

    process.keep_compiled_programs()
    process.keep_freed_memory()
    process.run_one_program_at_a_time()
    process.ignore_late_writers()
    handler.loading = False
    return cluster.leave(lambda: errors.exit_code(work))


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in _VERBS.items())
    return (
        f"usage: segjax VERB ...\n\n{verbs}\n\n"
        f"segjax VERB --help says more. Start with\n"
        f"  segjax train experiments/digits_unet.py"
    )


if __name__ == "__main__":
    main()
