"""Words at the start or end of file names that tell images and masks apart."""

import dataclasses
from collections.abc import Iterable, Sequence

from segjax.data.builders.listing import File
from segjax.data.builders.sources import Tree
from segjax.errors import UserError

_SEPARATORS = ("_", "-", ".", " ")


@dataclasses.dataclass(frozen=True)
class Affix:
    """A word with its separator.

    Attributes:
        text: In lower case, such as `_mask`; empty for names without one.
        at_end: Whether it is at the end.
    """

    text: str = ""
    at_end: bool = True

    def fits(self, stem: str) -> bool:
        """Whether a stem has the affix, in any case, and more than that."""
        stem = stem.lower()
        has = stem.endswith(self.text) if self.at_end else stem.startswith(self.text)
        return has and len(stem) > len(self.text)

    def key(self, file: File) -> tuple[str, str]:
        """Returns the file's folder, and its stem without the affix."""
        size, stem = len(self.text), file.stem
        rest = stem[: len(stem) - size] if self.at_end else stem[size:]
        return file.folder, rest

    def name_for(self, key: tuple[str, str]) -> str:
        """Returns the stem that has the key."""
        return f"{key[1]}{self.text}" if self.at_end else f"{self.text}{key[1]}"

    def shown(self) -> str:
        """Returns the pattern: `NAME_mask`."""
        return self.name_for(("", "NAME"))


def common(found: Sequence[File], words: Sequence[str]) -> list[Affix]:
    """Returns no affix, and those that all files have."""
    every = [a for a in _all(words) if all(a.fits(file.stem) for file in found)]
    return [Affix(), *every]


def carried(found: Sequence[File], words: Sequence[str]) -> list[Affix]:
    """Returns the affixes that at least one file has."""
    return [a for a in _all(words) if any(a.fits(file.stem) for file in found)]


def by_key(
    tree: Tree, found: Iterable[File], affix: Affix
) -> dict[tuple[str, str], File]:
    """Returns the files by `Affix.key`; ValueError if two have the same."""
    by_key: dict[tuple[str, str], File] = {}
    for file in found:
        other = by_key.setdefault(affix.key(file), file)
        if other != file:
            raise UserError(
                f"{tree.shown(file.name)} and {other.name} have the same stem: needed "
                f"unique stems; remove one."
            )
    return by_key


def _all(words: Sequence[str]) -> list[Affix]:
    ends = [Affix(f"{s}{word}") for word in words for s in _SEPARATORS]
    starts = [Affix(f"{word}{s}", at_end=False) for word in words for s in _SEPARATORS]
    return ends + starts
