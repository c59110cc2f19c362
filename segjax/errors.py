"""Errors that a user can fix; the command line prints them as one line."""

import contextlib
from collections.abc import Iterator

_MAX_CHARACTERS = 200


class UserError(ValueError):
    """Wrong input: the message says what was needed, what was given, what to do."""

    __module__ = "segjax"  # As tracebacks show it.


@contextlib.contextmanager
def as_user_error(what: str) -> Iterator[None]:
    """Converts errors with which libraries refuse wrong numbers into a UserError.

    Args:
        what: The beginning of the message, such as "The model cannot be initialized".
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        text = " ".join(str(error).split())[:_MAX_CHARACTERS].rstrip(".")
        raise UserError(
            f"{what}: {text}. Check the flags; SEGJAX_TRACEBACK=1 shows where."
        ) from error
