"""`--distributed`: connects the processes of a run, and ends them after an error."""

import atexit
import concurrent.futures
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from segjax.errors import UserError

FLAG = "--distributed"
_FORM = f"{FLAG} HOST:PORT COUNT RANK"
_PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Gloo")


class Place(NamedTuple):
    """One process of a distributed run.

    Attributes:
        address: HOST:PORT of process 0.
        count: The number of processes.
        rank: The number of this one, from 0.
    """

    address: str
    count: int
    rank: int


def join(args: Sequence[str], *, timeout: float = 300.0) -> None:
    """Connects this process to the others if the arguments have `--distributed`.

    Must run before the first computation, hence before a script is imported. Without
    values, the place comes from Slurm, Open MPI, Kubernetes or Cloud TPU, as JAX
    detects them. Does nothing without the flag, or if connected already.

    Args:
        args: The command line, before it is parsed.
        timeout: Seconds to wait for the other processes.

    Raises:
        ValueError: If the flag is wrong, no cluster is detected, the port is taken, a
            process is missing after `timeout`, or the counts differ.
    """
    if FLAG not in args or jax.distributed.is_initialized():
        return
    first = list(args).index(FLAG) + 1
    values = []
    for value in args[first:]:
        if value.startswith("-"):
            break
        values.append(value)
    # Its notifier takes SIGTERM for itself; the training loop handles it.
    jax.config.update("jax_enable_preemption_service", False)
    if not values:
        return _initialize(timeout)
    place = parse(values)
    if place.rank == 0:
        _check_port(int(place.address.rpartition(":")[2]))
    _initialize(
        timeout,
        coordinator_address=place.address,
        num_processes=place.count,
        process_id=place.rank,
        cluster_detection_method="deactivate",
    )
    everyone = multihost_utils.process_allgather(np.int32(place.count)).ravel().tolist()
    if len(set(everyone)) > 1:
        raise UserError(
            f"{FLAG} needs the same COUNT in all processes, got {everyone}."
        )


def _check_port(port: int) -> None:
    """Raises a ValueError if the port is in use.

    JAX would share it with another run on this machine, and break both.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise UserError(
            f"{FLAG} needs port {port} here, and cannot have it: "
            f"{os.strerror(error.errno or 0)}. Give all processes another HOST:PORT."
        ) from error


def _initialize(timeout: float, **place) -> None:
    """Calls `jax.distributed.initialize` in a thread.

    JAX waits in C++, without Ctrl-C, and aborts the process after its own timeout.
    """
    joined = concurrent.futures.Future()

    def run() -> None:
        try:
            jax.distributed.initialize(
                **place, initialization_timeout=int(timeout) + 60
            )
            joined.set_result(None)
        except Exception as error:
            joined.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        joined.result(timeout)
    except TimeoutError as error:
        raise UserError(
            f"{FLAG} waited {timeout:g} s, and a process is missing. Start all of them "
            f"with the same HOST:PORT and COUNT, and RANK from 0 to COUNT - 1."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{FLAG} failed: {error}") from error
    except RuntimeError as error:
        raise UserError(
            f"{FLAG} must come before the first computation, and the script made one "
            f"when it was imported. Move it into a function."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{FLAG} alone needs Slurm, Open MPI, Kubernetes (with the package "
            f"kubernetes) or a Cloud TPU, and found none. Give {_FORM}."
        ) from error


def parse(values: Sequence[str]) -> Place:
    """Parses HOST:PORT COUNT RANK, separate or joined by commas.

    Raises:
        ValueError: If there are not three values, or they are out of range.
    """
    parts = [part for value in values for part in value.split(",") if part]
    if len(parts) != 3:
        raise UserError(f"{FLAG} takes nothing or HOST:PORT COUNT RANK, got {parts}.")
    host, _, port = parts[0].rpartition(":")
    numbers = (port, *parts[1:])
    if not host or not all(n.isascii() and n.isdigit() for n in numbers):
        raise UserError(
            f"{FLAG} needs HOST:PORT and two numbers, got {' '.join(parts)}. "
            f"For the first of two processes give {FLAG} HOST:1234 2 0."
        )
    place = Place(parts[0], *map(int, parts[1:]))
    if not 0 < int(port) < 2**16:
        raise UserError(f"{FLAG} needs a port in 1 to 65535, got {port}.")
    if not 0 <= place.rank < place.count:
        raise UserError(
            f"{FLAG} needs RANK in 0 to COUNT - 1, got rank {place.rank} of "
            f"{place.count} processes. Number them from 0."
        )
    return place


def run_or_exit(work: Callable[[], int]) -> int:
    """Runs the command; ends the process of a distributed run itself.

    After an error it ends at once: JAX's shutdown would wait for all processes, while
    the others wait for this one in a collective, for minutes. Once it has ended, they
    fail immediately on a CPU, and after JAX's heartbeat timeout elsewhere.

    Args:
        work: Returns the exit code: 2 for a user's mistake.

    Returns:
        The exit code, unless the process was ended.
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
    if jax.distributed.is_initialized():
        if code in (1, 2):
            time.sleep(1.0)  # Time for the others to report the same error.
        else:
            atexit._run_exitfuncs()  # JAX waits for the others.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Gloo's destructors have been seen to wait forever.
    return code
