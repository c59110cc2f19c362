"""Joining the processes of a run: the flag, the roll call, and what goes wrong."""

import concurrent.futures
import socket
import time

import pytest

from segjax.cli import cluster, roll_call


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def roll(*places, timeout=10.0):
    """Calls the roll from a thread a process; returns each one's error or None."""
    port = free_port()

    def one(place):
        rank, count = place
        try:
            here = roll_call.Place("127.0.0.1", port, count, rank)
            roll_call.call_roll(here, timeout=timeout)
        except ValueError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


@pytest.mark.parametrize(
    "values", [["gpu1:1234", "4", "3"], ["gpu1:1234,4,3"], ["gpu1:1234,", "4,3"]]
)
def test_place_is_read_apart_or_joined(values):
    assert cluster.parse(values) == roll_call.Place("gpu1", 1234, 4, 3)


def test_an_ipv6_host_is_read():
    assert cluster.parse(["[::1]:1234", "2", "0"]).host == "::1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["gpu1:1234", "4"], r"takes nothing or HOST:PORT COUNT RANK, got"),
        (["gpu1", "4", "0"], r"HOST:PORT and two numbers, got gpu1 4 0"),
        (["gpu1:x", "4", "0"], r"HOST:PORT and two numbers, got gpu1:x 4 0"),
        (["gpu1:1234", "four", "0"], r"two numbers, got gpu1:1234 four 0"),
        (["gpu1:99999", "4", "0"], r"port in 1 to 65535, got 99999"),
        (["gpu1:1234", "4", "4"], r"RANK in 0 to COUNT - 1, got rank 4 of 4"),
        (["gpu1:1234", "0", "0"], r"got rank 0 of 0 processes"),
    ],
)
def test_wrong_values_are_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        cluster.join(["--steps", "3", "--distributed", *values, "--seed", "1"])
    assert "\n" not in str(error.value)


def test_without_the_flag_nothing_happens():
    cluster.join(["--steps", "3"])


def test_all_come():
    assert roll((0, 3), (1, 3), (2, 3)) == [None, None, None]


@pytest.mark.slow
def test_one_is_told_another_count():
    here, there, wrong = roll((0, 3), (1, 3), (2, 4))
    assert here == wrong
    assert "rank 0 was told 3 and rank 2 4" in here
    assert there is not None  # It does not wait for the rest of its time.


def test_two_have_one_rank():
    answers = roll((0, 3), (1, 3), (1, 3))
    assert all("1 came twice" in answer for answer in answers)


def test_one_does_not_come():
    here, there = roll((0, 3), (2, 3), timeout=0.5)
    assert here == there
    assert "waited 0.5 s for 3 processes, and rank 1 did not come" in here


def test_process_0_does_not_come():
    (answer,) = roll((1, 2), timeout=0.5)
    assert "needs process 0 at 127.0.0.1:" in answer
    assert "Connection refused" in answer


def test_strangers_are_ignored():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = roll_call.Place("127.0.0.1", port, 2, 0)
        called = pool.submit(roll_call.call_roll, first, timeout=10.0)
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b""):
            with _connected(port) as stranger:
                stranger.sendall(greeting)
        second = roll_call.Place("127.0.0.1", port, 2, 1)
        pool.submit(roll_call.call_roll, second, timeout=10.0).result()
        called.result()


def _connected(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=0.1)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"needs port {port} here"):
            roll_call.call_roll(roll_call.Place("127.0.0.1", port, 2, 0), timeout=1.0)
