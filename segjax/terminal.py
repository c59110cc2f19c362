"""Printing on the terminal with rich."""

from typing import Any

from rich.console import Console


def console(**options: Any) -> Console:
    """Makes a console that prints texts as they are.

    Names of classes, files and runs come from users: `[/b]` in them is not markup, and
    `:smile:` is not an emoji. Colors are set by `rich.text.Text`.

    Args:
        **options: Of `rich.console.Console`.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)
