"""Wrong flags are one line that says what to type."""

import pytest

from segjax.cli import flags
from segjax.errors import UserError


def build(*, ids: tuple[int, ...] | None = None, rate: float | None = None):
    """Returns its flags."""
    return ids, rate


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--ids", "0,76,150"],
            "--ids needs INT [INT ...], got 0,76,150; separate values by spaces: "
            "--ids 0 76 150. See segjax x --help.",
        ),
        (["--ids", "0", "a"], "--ids needs INT [INT ...], got 0 a. See"),
        (["--rate", "fast"], "--rate needs FLOAT, got fast. See"),
    ],
)
def test_flags_of_several_types(args, words):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        flags.read(build, args, prog="segjax x")
    assert str(caught.value).startswith(words)


def test_right_flags():
    got = flags.read(build, ["--ids", "0", "76", "--rate", "0.5"], prog="segjax x")
    assert got == ((0, 76), 0.5)
