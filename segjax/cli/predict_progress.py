"""The progress bar of `segjax predict`."""

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Speed(TextColumn):
    """Images per second."""

    def __init__(self):
        super().__init__("")

    def render(self, task):
        """Formats the speed, empty before the first image."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} images/s" if speed else "")


def bar() -> Progress:
    """Makes the bar; its task is measured in images."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        transient=True,
    )
