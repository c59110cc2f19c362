"""The lock of a run folder: one process writes it at a time."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import warnings
from collections.abc import Iterator

import jax

from segjax.errors import UserError
from segjax.run_folder.errors import saving

LOCK = "lock"
"""The file that the writer of a run folder locks."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(run: pathlib.Path) -> Iterator[None]:
    """Locks a run folder for this process, or for the first of a distributed run.

    The operating system releases the lock when the process ends in any way, `kill -9`
    included; the file stays. On a file system without locks there is a warning
    instead.

    Args:
        run: The run folder, which exists.

    Raises:
        ValueError: If another process holds it; the message has its number and host.
    """
    if jax.process_index() > 0:
        yield
        return
    if not (run / LOCK).is_file() and os.path.lexists(run / LOCK):
        raise UserError(f"{run / LOCK} needs to be a file. Remove it.")
    # Unbuffered: on a full disk a buffer would fail again when it is closed.
    with (run / LOCK).open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().decode().strip() or "another process"
            raise UserError(
                f"A run has one writer at a time, {run} is being written by {owner}. "
                f"Wait until it ends, stop it, or choose another --run."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{run} lies on a file system without locks ({error.strerror}): "
                f"nothing keeps a second process from writing it.",
                stacklevel=3,
            )
        with saving(run / LOCK):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
