"""Unreadable records: errors that name them, and counting of skipped ones."""

import sys

from segjax.errors import UserError


class CorruptRecordError(UserError):
    """A record cannot be read.

    Attributes:
        split: Its split.
        number: Its position in the split.
        reason: One line; starts with the record's name if known.
    """

    def __init__(self, split: str, number: int, reason: str):
        super().__init__(split, number, reason)
        self.split, self.number, self.reason = split, number, reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}."

    @property
    def where(self) -> str:
        """The record and its split, for messages."""
        return f"record {self.number} of {self.split!r} cannot be read"


class SpecError(UserError):
    """An example's dtype or rank is unsupported or differs from the data set's.

    Such examples are never skipped: usually all of them have this problem.
    """


def one_line(error: BaseException) -> str:
    """Returns an error's message (at most 600 characters), or else its type name."""
    return " ".join(str(error).split())[:600].rstrip(".") or type(error).__name__


class SkippedRecords:
    """The records that training skipped; warns once for each on standard error."""

    def __init__(self, limit: int):
        """Starts empty.

        Args:
            limit: Maximum number of different records to skip.
        """
        self._limit = limit
        self._found: dict[tuple[str, int], CorruptRecordError] = {}

    @property
    def records(self) -> tuple[CorruptRecordError, ...]:
        """One error for each skipped record, in the order of occurrence."""
        return tuple(self._found.values())

    def add(self, error: CorruptRecordError) -> None:
        """Counts a record, once.

        Raises:
            ValueError: If there are more than allowed; the message names them.
        """
        key = (error.split, error.number)
        if key in self._found:
            return
        if len(self._found) >= self._limit:
            raise self._too_many(error)
        self._found[key] = error
        count = f"{len(self._found)} of {self._limit} allowed"
        print(f"skipped: {error.where}: {error.reason} ({count})", file=sys.stderr)

    def _too_many(self, error: CorruptRecordError) -> ValueError:
        if not self._limit:
            return UserError(
                f"{error.where}: {error.reason}. To skip up to N such records, pass "
                "--skip-corrupt N."
            )
        numbers = [str(e.number) for e in (*self._found.values(), error)]
        return UserError(
            f"{len(numbers)} records of {error.split!r} cannot be read and "
            f"--skip-corrupt allows {self._limit}: {', '.join(numbers)}; the last "
            f"one: {error.reason}. Repair the data, or allow more."
        )
