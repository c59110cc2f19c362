"""Sections and code blocks of a page under docs/."""

import dataclasses
import re

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]*) -->\n+)?^```python\n(?P<source>.*?)^```$",
    re.M | re.S,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A Python block of a page.

    Attributes:
        source: Its code.
        not_run: Why no test runs it: the comment `<!-- not run: WHY -->` before it.
    """

    source: str
    not_run: str | None = None


def python_blocks(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    return [Block(m["source"], m["why"]) for m in _BLOCK.finditer(text)]


def sections(text: str) -> dict[str, str]:
    """{heading of third level: Markdown below it} of a page."""
    found = {}
    for part in re.split(r"^### ", text, flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        found[heading.strip()] = re.split(r"^## ", body, flags=re.M)[0]
    return found
