"""Writes the experiment script of a run whose settings were suggested."""

import ast
import inspect
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.cli.own_plans import Line
from segjax.cli.scripts import Build

_MAIN = """

if __name__ == "__main__":
    from segjax import cli

    cli.run(experiment)
"""


def render(build: Build, keywords: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """Returns the source of an experiment with other default values.

    Args:
        build: The function `experiment` of a module, whose whole source is returned.
        keywords: A value for each of its keywords.
        lines: Why the values are what they are, for the docstring.
    """
    source = inspect.getsource(sys.modules[build.__module__])
    tree = ast.parse(source)
    functions = {x.name: x for x in tree.body if isinstance(x, ast.FunctionDef)}
    arguments = functions["experiment"].args
    edits = []
    for argument, default in zip(
        arguments.kwonlyargs, arguments.kw_defaults, strict=True
    ):
        value = _literal(keywords[argument.arg])
        if default is None:
            edits.append(
                (_end(source, argument), _end(source, argument), f" = {value}")
            )
        else:
            edits.append((_start(source, default), _end(source, default), value))
    for first, last, text in sorted(edits, reverse=True):
        source = source[:first] + text + source[last:]
    return _with_notes(source, lines) + _MAIN


def _with_notes(source: str, lines: Sequence[Line]) -> str:
    """Adds the reasons to the docstring of the module."""
    docstring = ast.parse(source).body[0]
    assert isinstance(docstring, ast.Expr)
    title = ast.literal_eval(docstring.value).split("\n")[0]
    notes = "\n".join(f"    {name}: {text}" for name, text, _ in lines)
    # What a name holds must not end the docstring.
    notes = notes.replace("\\", "/").replace('"', "'")
    rest = source[_end(source, docstring) :]
    return f'"""{title}\n\nSuggested by segjax train --data:\n\n{notes}\n"""{rest}'


def _literal(value: Any) -> str:
    if isinstance(value, pathlib.Path):
        return f"pathlib.Path({_literal(str(value))})"
    if isinstance(value, str) and value.isprintable() and not set(value) & set('"\\'):
        return f'"{value}"'
    return repr(value)


def _start(source: str, node: Any) -> int:
    return _place(source, node.lineno, node.col_offset)


def _end(source: str, node: Any) -> int:
    return _place(source, node.end_lineno, node.end_col_offset)


def _place(source: str, line: int, column: int) -> int:
    """Returns the index of a place; the sources are ASCII."""
    return sum(len(x) for x in source.splitlines(True)[: line - 1]) + column
