"""Records that cannot be read: named, counted, left out where that is allowed."""

import sys


class CorruptRecordError(ValueError):
    """A record that cannot be read.

    Attributes:
        split: Its split.
        number: Its place in the split.
        reason: One line; it starts with the record's name where that is known.
    """

    def __init__(self, split: str, number: int, reason: str):
        super().__init__(split, number, reason)
        self.split, self.number, self.reason = split, number, reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}."

    @property
    def where(self) -> str:
        """The record and its split, as messages name them."""
        return f"record {self.number} of {self.split!r} cannot be read"


class FormError(ValueError):
    """An example of another dtype or rank than batches, or the data set, have.

    No damage that could be left out: most often all examples are so.
    """


def one_line(error: BaseException) -> str:
    """What an error says, at most 600 characters of it, or else its type's name."""
    return " ".join(str(error).split())[:600].rstrip(".") or type(error).__name__


class Skipped:
    """The records that training left out, each told once on standard error."""

    def __init__(self, limit: int):
        """None yet.

        Args:
            limit: How many different records may be left out.
        """
        self._limit = limit
        self._found: dict[tuple[str, int], CorruptRecordError] = {}

    @property
    def records(self) -> tuple[CorruptRecordError, ...]:
        """One for each record left out, in the order in which they were met."""
        return tuple(self._found.values())

    def add(self, error: CorruptRecordError) -> None:
        """Counts a record unless it was counted before.

        Raises:
            ValueError: If more are broken than may be left out; it names them.
        """
        key = (error.split, error.number)
        if key in self._found:
            return
        if len(self._found) >= self._limit:
            raise self._too_many(error)
        self._found[key] = error
        count = f"{len(self._found)} of {self._limit} allowed"
        print(f"left out: {error.where}: {error.reason} ({count})", file=sys.stderr)

    def _too_many(self, error: CorruptRecordError) -> ValueError:
        if not self._limit:
            return ValueError(
                f"{error.where}: {error.reason}. Or let up to N such records be left "
                "out: --skip-corrupt N."
            )
        numbers = [str(e.number) for e in (*self._found.values(), error)]
        return ValueError(
            f"{len(numbers)} records of {error.split!r} cannot be read and "
            f"--skip-corrupt allows {self._limit}: {', '.join(numbers)}; the last "
            f"one: {error.reason}. Or allow more."
        )
