"""`--distributed`: its values, and messages when processes do not match."""

import re
import socket
import subprocess
import sys

import pytest

from segjax.cli import cluster
from tests import processes

JOIN = """
import sys
from segjax.cli import cluster, errors

def work():
    cluster.join(["--distributed", *sys.argv[2:]], timeout=float(sys.argv[1]))
    print("joined")

sys.exit(cluster.run_or_exit(lambda: errors.exit_code(work)))
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def join(*places, port=None, timeout=60.0):
    """Starts a process for each (rank, count); returns exit codes and output."""
    port = free_port() if port is None else port
    started = []
    for rank, count in places:
        values = [f"127.0.0.1:{port}", str(count), str(rank)]
        command = [sys.executable, "-c", JOIN, str(timeout), *values]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return [
        (code, out if code == 0 else lines_of(error))
        for code, out, error in processes.finished(started, timeout=120)
    ]


def lines_of(error):
    """segjax's lines, without the log lines of JAX and gloo."""
    return "".join(x for x in error.splitlines(True) if re.match("error: |Trace", x))


@pytest.mark.parametrize(
    "values", [["gpu1:1234", "4", "3"], ["gpu1:1234,4,3"], ["gpu1:1234,", "4,3"]]
)
def test_values_are_read_with_spaces_or_equals_sign(values):
    assert cluster.parse(values) == cluster.Place("gpu1:1234", 4, 3)


def test_an_ipv6_host_is_read():
    assert cluster.parse(["[::1]:1234", "2", "0"]).address == "[::1]:1234"


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


@pytest.mark.slow
def test_all_join():
    for code, out in join((0, 2), (1, 2)):
        assert code == 0
        assert "joined" in out.splitlines()


@pytest.mark.slow
def test_different_counts():
    (code, here), (other, there) = join((0, 2), (1, 3))
    assert code == other == 2
    assert here == there
    assert "needs the same COUNT in all processes, got [2, 3]" in here


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_is_missing(rank):
    ((code, said),) = join((rank, 2), timeout=1.0)
    assert code == 2
    assert "waited 1 s, and a process is missing" in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        place = ["--distributed", f"127.0.0.1:{port}", "2", "0"]
        with pytest.raises(ValueError, match=f"needs port {port} here"):
            cluster.join(place, timeout=1.0)
