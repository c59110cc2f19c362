"""The roll call of a run's processes: all there, one count, each rank once."""

import contextlib
import dataclasses
import socket
import time
from collections.abc import Sequence

_GREETING = "segjax"
_GRACE = 10.0  # Seconds for process 0 to tell the others why it gives up.


@dataclasses.dataclass(frozen=True)
class Place:
    """A process among those of a run.

    Attributes:
        host: Where process 0 listens, as the others reach it.
        port: A free one there.
        count: Processes of the run.
        rank: Of this one, in [0, count).
    """

    host: str
    port: int
    count: int
    rank: int


def call_roll(place: Place, *, timeout: float) -> None:
    """Returns once all processes have come and agree on their number.

    Process 0 listens at the port that JAX's coordinator will take afterwards; the
    others send it their rank and count and wait for its word.

    Raises:
        ValueError: In each process, with the reason, where one is missing or wrong.
    """
    if place.rank:
        return _answer(place, timeout)
    missing = set(range(1, place.count))
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(place))
        peers = []
        while missing:
            left = max(deadline - time.monotonic(), 0.01)
            peer, line = _accept(server, left)
            if peer is not None:
                peers.append(stack.enter_context(peer))
            problem = _problem(place, line, missing, timeout)
            if problem:
                _send(peers, problem)
                raise ValueError(problem)
        _send(peers, "ok")


def _listen(place: Place) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", place.port), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise ValueError(
            f"--distributed needs port {place.port} here, and cannot have it: "
            f"{error.strerror}. Give all processes another HOST:PORT."
        ) from error


def _accept(
    server: socket.socket, timeout: float
) -> tuple[socket.socket | None, str | None]:
    """The next caller and what it says; (None, None) when time is up."""
    server.settimeout(timeout)
    try:
        peer, _ = server.accept()
    except TimeoutError:
        return None, None
    try:
        return peer, _line(peer, 5.0)
    except OSError:
        return peer, ""


def _problem(
    place: Place, line: str | None, missing: set[int], timeout: float
) -> str | None:
    """What is wrong with a caller; takes its rank off the missing ones if nothing."""
    if line is None:
        names = ", ".join(map(str, sorted(missing)))
        return (
            f"--distributed waited {timeout:g} s for {place.count} processes, and rank "
            f"{names} did not come. Start all of them with the same HOST:PORT."
        )
    words = line.split()
    if len(words) != 3 or words[0] != _GREETING:
        return None  # Not one of us: a port scan, a health check.
    rank, count = map(int, words[1:])
    if count != place.count:
        return (
            f"--distributed needs one COUNT in all processes, rank 0 was told "
            f"{place.count} and rank {rank} {count}. Start them with the same."
        )
    if rank not in missing:
        return (
            f"--distributed needs another RANK in each process, {rank} came twice. "
            f"Number them from 0 to {count - 1}."
        )
    missing.remove(rank)
    return None


def _answer(place: Place, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    reason = ""
    while time.monotonic() < deadline:
        left = deadline - time.monotonic()
        try:
            address = (place.host, place.port)
            with socket.create_connection(address, timeout=min(left, 5.0)) as peer:
                _send([peer], f"{_GREETING} {place.rank} {place.count}")
                word = _line(peer, left + _GRACE)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(0.2, timeout / 10))
            continue
        if word == "ok":
            return
        if word:
            raise ValueError(word)
        reason = "it hung up"  # Perhaps the end of an earlier run: try again.
        time.sleep(min(0.2, timeout / 10))
    raise ValueError(
        f"--distributed needs process 0 at {place.host}:{place.port}, and had "
        f"no answer for {timeout:g} s ({reason}). Start it, or mend the address."
    )


def _line(peer: socket.socket, timeout: float) -> str:
    peer.settimeout(timeout)
    with peer.makefile("r", encoding="utf-8", errors="replace") as text:
        return text.readline(1000).strip()


def _send(peers: Sequence[socket.socket], text: str) -> None:
    for peer in peers:
        with contextlib.suppress(OSError):  # One that left is noticed later on.
            peer.sendall(f"{text}\n".encode())
