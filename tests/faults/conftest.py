"""Real training processes: a script that has all that could differ after a resume."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sysconfig
import time

import pytest

from tests.cli.conftest import SCRIPT as CLI_SCRIPT
from tests.cli.conftest import write_scenes
from tests.disks import small_disk
from tests.docs.blocks import definitions
from tests.faults.tally import pytest_runtest_makereport as pytest_runtest_makereport
from tests.faults.tally import pytest_terminal_summary as pytest_terminal_summary
from tests.faults.tally import tally as tally

METHODS = {
    "mean_teacher": "Mean teacher",
    "two_optimizers": "Two optimizers",
    "sam": "Sharpness-aware minimization",
    "frozen_encoder": "Frozen layers and their statistics",
    "plateau": "Reduce the rate on plateaus",
    "lbfgs": "L-BFGS",
}
"""Functions of docs/extending.md, by their headings."""

SCRIPT = '''"""Batch norm, averaged parameters, a schedule, noise; slow on demand."""

import os
import pathlib
import time

import methods
import optax

from segjax import cli, data, losses, metrics, models, train
from segjax.data import augment
from segjax.run_folder import integrity

STEP_SECONDS = float(os.environ.get("STEP_SECONDS", 0))
SAVE_SECONDS = float(os.environ.get("SAVE_SECONDS", 0))


def slower(function, seconds):
    def slow(*args):
        time.sleep(seconds)
        return function(*args)

    return slow if seconds else function


train.Recorder.after_step = slower(train.Recorder.after_step, STEP_SECONDS)
integrity.commit = slower(integrity.commit, SAVE_SECONDS)


def experiment(
    *,
    source: pathlib.Path,
    steps: int = 240,
    num_workers: int = 0,
    width: int = 8,
    method: str = "supervised",
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and masks/.
        steps: Optimizer updates in total.
        num_workers: Reader processes.
        width: Channels at the bottom.
        method: What a step does.
    """
    scenes = data.folder(source)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, steps)
    optimizer, step = optax.adamw(rate), getattr(methods, method, None)
    if method in ("plateau", "lbfgs"):
        optimizer, step = step(1e-2) if method == "plateau" else step(), None
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=4, log_every=7, eval_every=20, samples=1
        ),
        data=data.Pipeline(
            dataset=scenes, size=16, multiple=16, num_workers=num_workers
        ),
        model=models.UNet(
            num_classes=3, widths=(4, width), norm=models.layers.batch_norm
        ),
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optimizer if step else train.with_ema(optimizer, decay=0.9),
        metric=metrics.semantic(scenes.classes),
        augment=augment.compose(augment.horizontal_flip, augment.gaussian_noise()),
        step=step or train.supervised_step,
    )


if __name__ == "__main__":
    cli.run(experiment)
'''


class Training:
    """One `segjax train` process on the script."""

    def __init__(self, command, env, run, output):
        self.run, self._output = run, output
        self.resumes = (run / "run.json").exists()
        self._parts_before, self._log_before = self._parts(), self._log()
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "--run", str(run), *["--resume"] * self.resumes],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self):
        return self._output.read_text()

    @property
    def first_step(self):
        """The step that it says it goes on from; None before it says so."""
        if not self.resumes:
            return 0
        found = re.search(r"Continuing from the checkpoint of step (\d+)", self.output)
        if "restarting" in self.output:
            return 0
        return int(found[1]) if found else None

    def wait_until(self, condition):
        """Asks every other millisecond; False if the process ended before."""
        deadline = time.monotonic() + 200
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.output
            time.sleep(0.002)
        return True

    def trains(self):
        """Whether it has written a line about steps of its own."""
        first, text = self.first_step, self._log()
        # Lines of a process that was killed are there until it has cut them off.
        if first is None or text == self._log_before or not text.endswith("\n"):
            return False
        return json.loads(text.splitlines()[-1])["step"] > first

    def _log(self):
        path = self.run / "metrics.jsonl"
        return path.read_text() if path.exists() else ""

    def saves(self):
        """Whether a checkpoint of its own is being written."""
        return self._parts() - self._parts_before

    def _parts(self):
        folder = self.run / "checkpoints"
        try:
            return {(p.name, p.stat().st_ino) for p in folder.glob("*.part")}
        except FileNotFoundError:  # Renamed just now.
            return set()

    def send(self, signum):
        self.process.send_signal(signum)

    def send_to_all(self, signum):
        """To its readers too, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signum)

    def stop_while_saving(self):
        """Stops it, as a debugger does, in the middle of a save."""
        while self.wait_until(self.saves):
            self.send(signal.SIGSTOP)
            if self.saves():
                return True
            self.send(signal.SIGCONT)
        return False

    def end(self):
        """Its exit code, once its readers are gone too."""
        code = self.process.wait(timeout=200)
        deadline = time.monotonic() + 60
        while left := alive(self.process.pid):
            assert time.monotonic() < deadline, f"{left} are left of {self.output}"
            time.sleep(0.02)
        return code


def alive(group):
    """The processes of a group that have not ended."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.append(path.parent.name)
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "scenes.py").write_text(SCRIPT)
    steps = [definitions("extending.md", heading) for heading in METHODS.values()]
    (folder / "methods.py").write_text("\n\n".join(steps))
    write_scenes(folder / "source", count=40)
    # tensorboardX loads PyTorch where there is one, for half of a command's start.
    (folder / "without").mkdir()
    (folder / "without/torch.py").write_text("raise ImportError('left out')\n")
    return folder


@pytest.fixture
def start(folder):
    """Starts training into a run folder: `start(run, "--steps", "9", env={...})`."""
    segjax = shutil.which("segjax", path=sysconfig.get_path("scripts"))
    assert segjax, "install the package: pip install -e ."
    started = []

    def call(run, *flags, env=None):
        command = [segjax, "train", str(folder / "scenes.py")]
        command += ["--source", str(folder / "source"), *flags]
        paths = [str(folder / "without"), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",  # One device, in every process.
            "SEGJAX_DATA_DIR": str(folder / "prepared"),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        output = folder / f"{run.name}.{len(started)}.txt"
        made = Training(command, os.environ | own | (env or {}), run, output)
        started.append(made)
        return made

    yield call
    for training in started:
        if training.process.poll() is None or alive(training.process.pid):
            training.send_to_all(signal.SIGKILL)
            training.process.wait()


@pytest.fixture
def disk(tmp_path):
    """A file system of eight megabytes, where this process may mount one."""
    with small_disk(tmp_path / "disk", "8m") as folder:
        yield folder


@contextlib.contextmanager
def small_place(folder):
    """Twelve images and a script that logs each step; data and keys of its own."""
    script = CLI_SCRIPT.replace("log_every=5, samples=2", "log_every=1, samples=1")
    (folder / "scenes.py").write_text(script)
    write_scenes(folder / "source", count=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGJAX_DATA_DIR", str(folder / "prepared"))
        patch.setenv("XDG_DATA_HOME", str(folder / "home"))
        yield


def fill(path, *, leave=0):
    """Writes a file until the disk is full, but for some bytes."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - leave))


@pytest.fixture(scope="session")
def script(folder):
    return folder / "scenes.py"


def checkpoint_steps(run):
    """Checkpoints that have their name, ascending."""
    folder = pathlib.Path(run) / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())


@pytest.fixture
def whole(start, folder):
    """The run that nothing interrupts; made once."""
    run = folder / "whole"
    if not (run / "result.json").exists():
        training = start(run)
        assert training.end() == 0, training.output
    return run


def lines(run):
    """Records of its log, without what a clock decides."""
    records = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]
