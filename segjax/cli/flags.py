"""Reads flags with tyro and turns its error boxes into one line."""

import ast
import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tyro

from segjax.errors import UserError

_FRAME = re.compile(r"^[│|]\s?|\s*[│|]$")
_RULE = re.compile(r"^[\s─-]*$")
_UNION = re.compile(
    r"Error parsing (--\S+): no type matching (.*) could be instantiated from (\[.*\])"
)
_MOST_SUGGESTIONS = 3


def read(target: Callable[..., Any], args: Sequence[str], *, prog: str) -> Any:
    """Calls a function or dataclass with the arguments of a command line.

    Args:
        target: A callable; its signature and docstring define the flags.
        args: The command line.
        prog: The command, for messages.

    Returns:
        The result of `target`.

    Raises:
        ValueError: If a flag is wrong or missing; one line, with a suggestion.
        SystemExit: With code 0, after --help.
    """
    said = io.StringIO()
    asks = {"-h", "--help"} & set(args)
    try:
        with contextlib.nullcontext() if asks else _wide():
            with contextlib.redirect_stderr(said):
                return tyro.cli(target, args=list(args), prog=prog)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue(), prog)) from None


def split_value(args: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """Takes a flag and its value out of a command line.

    Args:
        args: The command line.
        flag: Such as --data; its value follows, or is joined by "=".

    Returns:
        (the value, the other arguments). None without the flag, or if no value follows
        it, since the next argument is a flag or there is none; the flag is taken out
        even then.
    """
    for number, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name != flag:
            continue
        before, after = list(args[:number]), list(args[number + 1 :])
        if equals:
            return value, before + after
        if after and not after[0].startswith("-"):
            return after[0], before + after[1:]
        return None, before + after
    return None, list(args)


def _one_line(box: str, prog: str) -> str:
    """Joins the lines of a tyro message, with its suggestions."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in box.splitlines()]
    lines = [_FRAME.sub("", x).strip() for x in lines if not x.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for line in lines:
        if _RULE.fullmatch(line):
            sections.append([])
        else:
            sections[-1].append(line)
    what, *others = [section for section in sections if section] or [["Wrong flags"]]
    if union := _UNION.match(" ".join(what)):
        return f"{_of_union(*union.groups())}. See {prog} --help."
    said = [" ".join(what).rstrip(".")]
    for section in others:
        options = [x for x in section if x.startswith("-")][:_MOST_SUGGESTIONS]
        if options and section[0].startswith("Perhaps"):
            said.append(f"Perhaps you meant {', '.join(options)}")
        elif options:
            said.append(f"It takes {', '.join(options)}")
    return ". ".join([*said, f"See {prog} --help."])


def _of_union(flag: str, types: str, values: str) -> str:
    """Says what a flag with several types takes; tyro says why it is none of each."""
    shown = types.replace("{None}|", "").strip("{}")
    shown = re.sub(r"^\[(.*)\]$", r"\1", shown)
    got = [str(value) for value in ast.literal_eval(values)]
    said = f"{flag} needs {shown}, got {' '.join(got)}"
    if any("," in value for value in got):
        apart = " ".join(" ".join(got).replace(",", " ").split())
        said += f"; separate values by spaces: {flag} {apart}"
    return said


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Keeps tyro from wrapping lines, which would break words."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
