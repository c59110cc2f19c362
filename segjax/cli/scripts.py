"""Loads experiment scripts, and parses and restores their flags."""

import dataclasses
import datetime
import functools
import importlib.util
import inspect
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import cloudpickle
import msgspec
import tyro

from segjax.cli import flags as flag_reader
from segjax.errors import UserError, as_user_error
from segjax.train.experiment import Experiment

Build = Callable[..., Experiment]


def load(path: pathlib.Path, *, beside: pathlib.Path | None = None) -> Build:
    """Loads the function `experiment` of a script.

    Args:
        path: A Python file.
        beside: The folder whose modules the script may import; its own unless given.

    Raises:
        ValueError: If there is no such file, or no such function in it.
    """
    if not path.is_file():
        raise UserError(
            f"An experiment script is needed, {path} is no file. "
            f"Try experiments/digits_unet.py."
        )
    sys.path.insert(0, str((beside or path.parent).absolute()))
    # A name of its own: a script called data.py must not replace another module.
    name = f"_segjax_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"An experiment is a .py file, got {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Where dataclasses look up their module.
    cloudpickle.register_pickle_by_value(module)  # Reader processes cannot import it.
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        if error.filename != str(path):
            raise
        raise UserError(
            f"{path} is no Python: {error.msg} (line {error.lineno})."
        ) from error
    build: Any = getattr(module, "experiment", None)
    if build is None:
        raise UserError(
            f"{path} needs a function `experiment(*, ...) -> train.Experiment`, "
            f"and has none. See experiments/digits_unet.py."
        )
    return build


def parse(
    build: Build,
    options: type,
    args: Sequence[str],
    *,
    prog: str,
    defaults: Mapping[str, Any] | None = None,
    more: Sequence[type] = (),
) -> tuple[dict[str, Any], Any]:
    """Parses the flags of the experiment together with those of the subcommand.

    Args:
        build: The experiment function; its keywords are flags.
        options: A dataclass of the subcommand's own flags.
        args: The command line after the script.
        prog: The command, for messages.
        defaults: Values that replace the signature's defaults.
        more: Dataclasses of further flags, whose values the caller reads itself.

    Returns:
        (keywords of the experiment, the subcommand's options).

    Raises:
        ValueError: If a flag is wrong or missing.
    """
    keywords = _keywords(build, defaults or {})
    experiment_flags = Annotated[Any, tyro.conf.arg(constructor=keywords, name="")]
    fields: list[tuple[str, Any]] = []
    for number, kind in enumerate((options, *more)):
        own = Annotated[Any, tyro.conf.arg(constructor=kind, name="")]
        fields.append((f"options{number}" if number else "options", own))
    fields.append(("experiment", experiment_flags))
    command = dataclasses.make_dataclass("command", fields)
    command.__doc__ = inspect.getdoc(sys.modules[build.__module__]) or ""
    parsed = flag_reader.read(command, args, prog=prog)
    return parsed.experiment, parsed.options


def without_seed(build: Build, script: pathlib.Path, *, command: str) -> Build:
    """Returns the experiment function without the flag `seed`, which it may be given.

    Args:
        build: The function.
        script: Its file, for messages.
        command: The subcommand that gives the seeds, for messages.

    Raises:
        ValueError: If the function has no keyword `seed`.
    """
    signature = inspect.signature(build)
    if "seed" not in signature.parameters:
        raise UserError(
            f"segjax {command} needs an experiment with a keyword `seed`, that of "
            f"{script} has none. Add `seed: int = 0` and give it to "
            f"TrainConfig(seed=seed)."
        )

    @functools.wraps(build)
    def seedless(**values):
        return build(**values)

    kept = [p for p in signature.parameters.values() if p.name != "seed"]
    described: Any = seedless
    described.__signature__ = signature.replace(parameters=kept)
    return described


def new_run(name: str) -> pathlib.Path:
    """Returns the default run folder, runs/NAME-TIME."""
    return pathlib.Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def construct(build: Build, keywords: Mapping[str, Any]) -> Experiment:
    """Calls the experiment function; what it or a library refuses is a UserError."""
    with as_user_error("The experiment cannot be built from its flags"):
        return build(**keywords)


def _keywords(build: Build, defaults: Mapping[str, Any]) -> Callable[..., dict]:
    """Returns a function with the experiment's signature that returns its arguments."""

    @functools.wraps(build)
    def keywords(**values):
        return values

    signature = inspect.signature(build)
    parameters = [
        p.replace(default=defaults.get(name, p.default))
        for name, p in signature.parameters.items()
    ]
    described: Any = keywords
    described.__signature__ = signature.replace(parameters=parameters)
    return described


def from_json(build: Build, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the flags in `run.json` back to the types of the signature.

    Flags that the script no longer has are dropped.

    Raises:
        ValueError: If a value does not fit the type in the script.
    """
    hints = typing.get_type_hints(build)
    return {k: _typed(k, v, hints[k]) for k, v in flags.items() if k in hints}


def _typed(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str) and pathlib.Path in members(hint):
        return pathlib.Path(value)
    value = tuple(value) if isinstance(value, list) else value
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        what = str(error).rstrip(".")
        raise UserError(
            f"The flag {name} that run.json keeps does not fit the script: {what}. "
            f"Give --{name.replace('_', '-')}, or restore run.json."
        ) from None
    except TypeError:  # A type that only the script knows.
        return value


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, such as `int | None`, or the one type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)
