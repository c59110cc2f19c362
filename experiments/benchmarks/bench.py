"""What the benchmarks share: options, contestants, times, memory, and results.

A contestant is a system in a process of its own, so that systems share no threads,
allocators and memory. It answers requests, one JSON line each, and contestants take
turns, so that a busy machine slows all alike.

JAX and segjax are imported by what needs them: a benchmark that times other processes
must not import at the same time.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import tyro

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
Run = Callable[[int], None]
"""Runs a number of steps, and waits for the last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """Where results go: a JSON file for each kind of machine.

    Attributes:
        note: What else a reader of the numbers should know, such as a busy machine.
        out: The file to write; results/NAME-MACHINE.json unless given.
    """

    note: str = ""
    out: pathlib.Path | None = None

    def write(self, name: str, found: dict[str, Any]) -> None:
        """Writes results with their date, versions and hardware, and says where.

        Args:
            name: Of the benchmark.
            found: JSON values.
        """
        from segjax import train

        record = {
            "date": datetime.date.today().isoformat(),
            "note": self.note,
            **train.run_environment(),
            **found,
        }
        path = self.out or RESULTS / f"{name}-{machine()}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"Written: {path}")


def run(main: Callable[..., None]) -> None:
    """Calls a benchmark with the options of the command line, its keywords."""
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))


def machine() -> str:
    """A name for the kind of machine, such as `cpu-2-cores`."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu-{len(os.sched_getaffinity(0))}-cores"
    kind = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower())
    return f"{len(jax.devices())}-{kind.strip('-')}"


def seconds(call: Callable[[], Any], count: int = 1) -> float:
    """Seconds of one of `count` calls in a row."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


class Contestant:
    """A process that runs steps when asked to."""

    def __init__(self, task: Any, script: str):
        """Starts it, and waits until it is compiled and warm.

        Args:
            task: A dataclass with a `system`, given to the script as JSON.
            script: Of this folder; it calls `answer`.
        """
        self.system = task.system
        command = [sys.executable, str(HERE / script)]
        command.append(json.dumps(dataclasses.asdict(task)))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._answer()

    def ask(self, request: Any) -> Any:
        """Sends one request, and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.system} ended; its message is above.")
        return json.loads(line)

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def answer(facts: Any, reply: Callable[[Any], Any]) -> None:
    """What a contestant does once it is warm: says facts, then answers all requests.

    Args:
        facts: JSON values, `Contestant.facts`.
        reply: From a request to its answer, both JSON values.
    """
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), flush=True)


def prepare_process() -> None:
    """Sets the process up as `segjax train` does, for every system alike."""
    from segjax import memory
    from segjax.cli import process

    memory.keep_freed_memory()
    memory.use_large_pages()
    process.run_one_program_at_a_time()


def share_device_memory() -> None:
    """Leaves memory to other processes; JAX takes three quarters at once otherwise.

    Comes before the first computation, and holds for contestants as well.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def peak_bytes(system: str) -> int | None:
    """The most memory since `forget_peak`, of the device or, on a CPU, the process."""
    if system.startswith("torch"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import jax

        if (stats := jax.devices()[0].memory_stats()) is not None:
            return stats.get("peak_bytes_in_use")
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    """Measures the process' peak memory from here on: compiling is not in it."""
    with (
        contextlib.suppress(OSError),
        open("/proc/self/clear_refs", "w", encoding="ascii") as file,
    ):
        file.write("5")
