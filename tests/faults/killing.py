"""Real processes of the command, killed at moments drawn at random."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

CODE = "from segjax.cli.main import main; main()"
"""As the console script has it."""
HUP, INT, KILL, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM
WAYS = {
    "kill": (KILL,),
    "term": (TERM,),
    "int": (INT,),
    "int twice": (INT, INT),
    "hup": (HUP,),
}
FIRST = 0.15
"""Seconds after which Ctrl-C is segjax's to answer; before, it is Python's."""
_ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass
class Ended:
    """A process that has ended.

    Attributes:
        alive: It was there when the signal came.
        waits: Seconds, and entries of the watched folders, at which it was killed.
    """

    code: int
    err: str
    alive: bool = True
    seconds: float = 0.0
    written: int = 0


class Command:
    """`segjax ...` in processes of its own, and the folders that it writes into."""

    def __init__(self, args, watched, env):
        self._args = [sys.executable, "-c", CODE, *map(str, args)]
        self.watched = pathlib.Path(watched)
        own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(_ROOT)}
        self._env = os.environ | own | {k: str(v) for k, v in env.items()}
        self.err = self.watched.with_name(f"{self.watched.name}.err")

    def run(self, *more):
        """Undisturbed, and measured."""
        with self._started(more) as process:
            seen, began = _Seen(self.watched), time.monotonic()
            while process.poll() is None:
                seen.look()
        seconds = time.monotonic() - began
        return self._ended(process, seconds=seconds, written=seen.count)

    def kill(self, way, rng, whole, *more):
        """Killed in a way, anywhere in what an undisturbed run, `whole`, took.

        At a moment in half of all cases, else when an entry has just been written.
        """
        with self._started(more) as process:
            if rng.random() < 0.5 or not whole.written:
                time.sleep(rng.uniform(FIRST, 0.98 * whole.seconds))
            else:
                self._wait_until_written(process, rng.integers(1, whole.written + 1))
            alive = process.poll() is None
            for number, signum in enumerate(WAYS[way]):
                if number:
                    time.sleep(rng.uniform(0, 0.1))
                process.send_signal(signum)
            process.wait(timeout=200)
        return self._ended(process, alive=alive)

    def _started(self, more):
        with self.err.open("w") as file:
            return subprocess.Popen(
                [*self._args, *more],
                env=self._env,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )

    def _wait_until_written(self, process, count):
        seen = _Seen(self.watched)
        while seen.count < count and process.poll() is None:
            seen.look()

    def _ended(self, process, **found):
        return Ended(process.returncode, self.err.read_text(), **found)


class _Seen:
    """Entries of a folder that were not there before."""

    def __init__(self, folder):
        self._folder, self._known, self.count = folder, set(), 0
        self.look()
        self.count = 0

    def look(self):
        time.sleep(0.001)  # Others want the processor too.
        found = set(_entries(self._folder))
        self.count += len(found - self._known)
        self._known |= found


def _entries(folder):
    try:
        for entry in os.scandir(folder):
            yield entry.path, entry.inode()
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
    except OSError:  # It was renamed or removed meanwhile.
        return


def contents(folder, *, but=()):
    """Every file below a folder and what it holds; `but` ends of names left out."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(tuple(but))
    }
