"""What `segjax sweep --search` may say, as settings of an experiment."""

import dataclasses
import inspect
import itertools
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segjax.cli import scripts
from segjax.errors import UserError

_RANGE = re.compile(r"(?P<low>[^.].*?)\.\.(?P<high>[^:]+?)(?P<log>:log)?")
_EXAMPLES = "learning_rate=1e-4..1e-2:log or width=16,32"


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        name: The experiment's keyword.
        low: The smallest.
        high: The largest.
        log: Whether to search their logarithms.
        whole: Whether they are integers.
    """

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    def values_if_few(self) -> tuple[int, ...] | None:
        """All whole numbers of the range; None if they are not whole."""
        return tuple(range(int(self.low), int(self.high) + 1)) if self.whole else None

    def suggest(self, trial: Any) -> float | int:
        """Asks an Optuna trial for a value."""
        if self.whole:
            return trial.suggest_int(
                self.name, int(self.low), int(self.high), log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def ends(self) -> tuple[str, ...]:
        """Values to check the experiment's flag with."""
        return tuple(_text(int(x) if self.whole else x) for x in (self.low, self.high))


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, as written on a command line.

    Attributes:
        name: The experiment's keyword.
        values: The values; one with spaces is several arguments.
    """

    name: str
    values: tuple[str, ...]

    def values_if_few(self) -> tuple[str, ...]:
        """All values."""
        return self.values

    def suggest(self, trial: Any) -> str:
        """Asks an Optuna trial for a value."""
        return trial.suggest_categorical(self.name, self.values)

    def ends(self) -> tuple[str, ...]:
        """Values to check the experiment's flag with."""
        return self.values


Dimension = Range | Choice


def parse(text: str, build: Callable) -> Dimension:
    """Reads `name=low..high`, `name=low..high:log` or `name=a,b,c`.

    Args:
        text: One argument of --search.
        build: The experiment function; `name` is one of its keywords.

    Raises:
        ValueError: If it is none of these, or there is no such keyword.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.lstrip("-").replace("-", "_")
    if not equals or not values:
        raise UserError(f"--search needs {_EXAMPLES}, got {text!r}.")
    parameters = inspect.signature(build).parameters
    if name not in parameters:
        raise UserError(
            f"--search {text}: the experiment has no setting {name}, only "
            f"{', '.join(k for k in parameters if k != 'seed')}."
        )
    if name == "seed":
        raise UserError(
            "--search seed=... would choose a lucky seed. Give --seeds 0 1 2: the "
            "value of a trial is the mean over them."
        )
    if found := _RANGE.fullmatch(values):
        return _range(text, name, found, build)
    choices = tuple(part.strip() for part in values.split(","))
    if len(set(choices)) < 2 or not all(choices):
        raise UserError(
            f"--search {text} needs at least two different values, or a range. Try "
            f"{_EXAMPLES}."
        )
    return Choice(name, tuple(dict.fromkeys(choices)))


def grid(space: Sequence[Dimension], most: int) -> list[dict[str, Any]]:
    """All combinations of values, if there are at most so many; else none."""
    values = {d.name: d.values_if_few() for d in space}
    found = {name: v for name, v in values.items() if v is not None}
    if len(found) < len(values) or math.prod(map(len, found.values())) > most:
        return []
    every = itertools.product(*found.values())
    return [dict(zip(found, one, strict=True)) for one in every]


def as_flags(build: Callable, values: Mapping[str, Any]) -> list[str]:
    """Writes settings as arguments of a command line.

    Args:
        build: The experiment function; settings that have their default are left out.
        values: Settings by keyword; an argument that was read, or a text of --search.
    """
    parameters = inspect.signature(build).parameters
    hints = typing.get_type_hints(build)
    args: list[str] = []
    for name, value in values.items():
        if value is None or value == parameters[name].default:
            continue
        flag = f"--{name.replace('_', '-')}"
        is_switch = bool in scripts.members(hints.get(name))
        if is_switch and str(value).lower() in ("true", "false"):
            yes = str(value).lower() == "true"
            args.append(flag if yes else f"--no-{flag[2:]}")
        elif isinstance(value, tuple | list):
            args += [flag, *map(_text, value)]
        elif isinstance(value, str):
            args += [flag, *value.split(" ")]
        else:
            args += [flag, _text(value)]
    return args


def _range(text: str, name: str, found: re.Match, build: Callable) -> Range:
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise UserError(f"--search {text} needs numbers, as {_EXAMPLES}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--search {text} needs a smaller number before a larger one.")
    log = found["log"] is not None
    if log and low <= 0:
        raise UserError(f"--search {text}: logarithms need numbers above 0.")
    types_ = scripts.members(typing.get_type_hints(build).get(name))
    if int not in types_ and float not in types_:
        raise UserError(
            f"--search {text}: {name} is no number, so that it has no range. List its "
            f"values: {name}=a,b."
        )
    whole = float not in types_
    if whole and not (low.is_integer() and high.is_integer()):
        raise UserError(f"--search {text}: {name} takes whole numbers.")
    return Range(name, low, high, log, whole)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
