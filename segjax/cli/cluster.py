"""`--distributed`: joining the other processes of a run, and leaving them."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import jax

from segjax.cli.roll_call import Place, call_roll

FLAG = "--distributed"
_FORM = f"{FLAG} HOST:PORT COUNT RANK"
_PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Gloo")


def join(args: Sequence[str], *, timeout: float = 300.0) -> None:
    """Joins the processes that `--distributed` among the arguments tells of.

    Comes before the first computation, so before an experiment script is imported.
    `--distributed` alone takes the place from Slurm, Open MPI, Kubernetes or Cloud
    TPU, as JAX finds it. With HOST:PORT COUNT RANK the processes first call the roll
    on that port: JAX itself ends the process with a stack trace where one is missing
    or has other numbers. Does nothing without the flag, or if joined already.

    Args:
        args: The command line, before it is parsed.
        timeout: Seconds to wait for the others.

    Raises:
        ValueError: If the flag is wrong, no cluster is found, a process does not
            come in time, or one was told another COUNT or the same RANK.
    """
    if FLAG not in args or jax.distributed.is_initialized():
        return
    first = list(args).index(FLAG) + 1
    values = []
    for value in args[first:]:
        if value.startswith("-"):
            break
        values.append(value)
    # Its notifier would swallow SIGTERM; the loop saves and leaves by itself.
    jax.config.update("jax_enable_preemption_service", False)
    if values:
        place = parse(values)
        call_roll(place, timeout=timeout)
        _initialize(
            timeout,
            coordinator_address=f"{place.host}:{place.port}",
            num_processes=place.count,
            process_id=place.rank,
            cluster_detection_method="deactivate",
        )
    else:
        _initialize(timeout)


def _initialize(timeout: float, **place) -> None:
    try:
        jax.distributed.initialize(**place, initialization_timeout=int(timeout))
    except RuntimeError as error:
        if "before" not in str(error):
            raise ValueError(f"{FLAG} failed: {error}") from error
        raise ValueError(
            f"{FLAG} must come before the first computation, and the script made one "
            f"when it was imported. Move it into a function."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{FLAG} alone needs Slurm, Open MPI, Kubernetes (with the package "
            f"kubernetes) or a Cloud TPU, and found none. Give {_FORM}."
        ) from error


def parse(values: Sequence[str]) -> Place:
    """Reads HOST:PORT COUNT RANK, apart or joined by commas.

    Raises:
        ValueError: If they are not three, not numbers, or out of range.
    """
    parts = [part for value in values for part in value.split(",") if part]
    if len(parts) != 3:
        raise ValueError(f"{FLAG} takes nothing or HOST:PORT COUNT RANK, got {parts}.")
    host, _, port = parts[0].rpartition(":")
    numbers = (port, *parts[1:])
    if not host or not all(n.isascii() and n.isdigit() for n in numbers):
        raise ValueError(
            f"{FLAG} needs HOST:PORT and two numbers, got {' '.join(parts)}. "
            f"For the first of two processes give {FLAG} HOST:1234 2 0."
        )
    place = Place(host.strip("[]"), *map(int, numbers))
    if not 0 < place.port < 2**16:
        raise ValueError(f"{FLAG} needs a port in 1 to 65535, got {place.port}.")
    if not 0 <= place.rank < place.count:
        raise ValueError(
            f"{FLAG} needs RANK in 0 to COUNT - 1, got rank {place.rank} of "
            f"{place.count} processes. Number them from 0."
        )
    return place


def leave(work: Callable[[], int]) -> int:
    """Runs the command; where it fails, ends this process without the others.

    JAX's clean end waits for all processes. Where one failed, the others wait for it
    in a collective, and nobody would end before a timeout of minutes. Once it is
    gone, theirs fail at once on a CPU, and after JAX's heartbeat elsewhere.

    Args:
        work: Returns the exit code: 2 for a user's mistake.

    Returns:
        The exit code, unless this is one of several processes and failed.
    """
    try:
        code = work()
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if any(word in str(error) for word in _PEER_IS_GONE):
            print(
                "error: another process of this run ended. See what it said, start "
                "all again and continue with --resume.",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        code = 1
    if code in (1, 2) and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(1.0)  # Others that fail for the same reason say so themselves.
        os._exit(code)
    return code
