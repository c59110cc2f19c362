"""What the tests of faults did, counted by kind; pytest prints the table at its end.

Counts travel in a test's `user_properties`, which also come from other processes.
"""

import contextlib
import os

import pytest

CASES = int(os.environ.get("SEGJAX_FAULTS", 40))
"""Damaged run folders to draw; the other tests take their shares of it."""
FAULTS = ("traceback", "wrong", "lost", "half-written")
_NAME = "faults"


class Tally:
    """Counts the cases of one test."""

    def __init__(self):
        self.counts = {}
        self._kind = None

    def case(self, kind):
        """A case begins; what happens next is of it."""
        self._kind = kind
        self.count("cases")

    def count(self, column):
        """`right`, `one line`, or one of `FAULTS`."""
        row = self.counts.setdefault(self._kind, {})
        row[column] = row.get(column, 0) + 1


@contextlib.contextmanager
def otherwise(fault):
    """What it means if an assertion in the block does not hold: one of `FAULTS`."""
    try:
        yield
    except AssertionError as error:
        if not hasattr(error, "fault"):
            error.fault = fault
        raise


@pytest.fixture
def tally(request):
    """Counts: `tally.case("evaluate")`, then `tally.count("right")`."""
    tally = Tally()
    request.node.user_properties.append((_NAME, tally.counts))
    request.node.tally = tally
    return tally


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A case that failed is a wrong result if an assertion says no more of it."""
    tally = getattr(item, "tally", None)
    if call.when == "call" and call.excinfo and tally and tally.counts:
        error = call.excinfo.value
        usual = "wrong" if isinstance(error, AssertionError) else "traceback"
        tally.count(getattr(error, "fault", usual))
    yield


def pytest_terminal_summary(terminalreporter):
    """Prints the table."""
    table = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, counts in report.user_properties:
                    if name == _NAME:
                        _add(table, counts)
    if not table:
        return
    terminalreporter.section("faults")
    for line in _lines(table):
        terminalreporter.write_line(line)


def _add(table, counts):
    for kind, row in counts.items():
        sums = table.setdefault(kind, {})
        for column, number in row.items():
            sums[column] = sums.get(column, 0) + number


def _lines(table):
    """A table in Markdown, with its sums."""
    columns = ("cases", "right", "one line", *FAULTS)
    rows = [(kind, table[kind]) for kind in sorted(table)]
    sums = {}
    for _, row in rows:
        _add({"": sums}, {"": row})
    yield f"| kind | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for kind, row in [*rows, ("all", sums)]:
        yield f"| {kind} | {' | '.join(f'{row.get(c, 0):,}' for c in columns)} |"
