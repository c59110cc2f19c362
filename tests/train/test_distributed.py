"""Two processes on one machine, with collectives over loopback, equal one process."""

import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from segjax import train
from tests import processes, scenes
from tests.train import agreement

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = '''"""Scenes."""
import optax
from tests import scenes

def experiment(*, steps: int = 12):
    """Scenes.

    Args:
        steps: Updates.
    """
    return scenes.experiment(steps=steps, optimizer=optax.sgd(0.1, momentum=0.9))
'''


def start(args, *, devices=1, **env):
    flags = f"--xla_force_host_platform_device_count={devices}"
    path = {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        env=os.environ | path | env,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def start_two(args, *, devices=1):
    """Starts two processes with their ranks; returns the first one first."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    place = ("--distributed", f"127.0.0.1:{port}", 2)
    return [start([*args, *place, rank], devices=devices) for rank in range(2)]


def finished(started):
    return processes.finished(started, timeout=300)


def segjax_train(script, run, *flags):
    code = "from segjax import cli; cli.main()"
    return ["-c", code, "train", script, "--run", run, *flags]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "scenes_script.py"
    path.write_text(SCRIPT)
    return path


def records(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_close(one, other):
    """Asserts equal JSON values, except times and rounding of floats."""
    one, other = ({k: v for k, v in x.items() if k not in TIMES} for x in (one, other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_close(value, other[name])
        elif isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        else:
            assert other[name] == value, name


TIMES = ("images_per_second", "seconds")


def made(**config):
    return scenes.experiment(optimizer=optax.sgd(0.1, momentum=0.9), **config)


def state_of(run, step=12):
    like = train.abstract_state(made().model, made().optimizer, image_shape=(16, 16, 3))
    with train.Checkpoints(run / "checkpoints", monitor="mean_iou") as kept:
        return kept.restore(step, like)


def assert_same_run(run, other):
    """Asserts equal state, lines and result, to rounding."""
    one, two = state_of(run), state_of(other)
    for part in ("params", "opt_state"):
        parts = getattr(two, part), getattr(one, part)
        assert scenes.relative_difference(*parts) < 1e-5
    for a, b in zip(records(run), records(other), strict=True):
        assert_close(a, b)
    assert_close(*(json.loads((r / "result.json").read_text()) for r in (run, other)))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """An uninterrupted run of this process on its four devices."""
    run = tmp_path_factory.mktemp("single") / "run"
    train.train(made(), run=run, console=Console(file=io.StringIO()))
    return run


@pytest.mark.slow
def test_steps_of_two_processes_agree_with_one_device(tmp_path):
    out, ways = tmp_path / "two.npz", ("jit", "jit_accumulated")
    args = ["-m", "tests.train.agreement", out, *ways]
    codes = finished(start_two(args, devices=2))
    assert [code for code, *_ in codes] == [0, 0], codes
    found = agreement.load(out)
    assert len(found) == 4
    for (norm, way), got in found.items():
        expected = agreement.three_steps(norm, way, jax.devices()[:1])
        assert agreement.difference(got, expected) < 1e-5, (norm, way)


@pytest.mark.slow
def test_two_processes_of_segjax_train_make_one_run(script, single, tmp_path):
    """Starts as Slurm does: the flag has no values; ranks come from the environment."""
    run = tmp_path / "run"
    args = segjax_train(script, run, "--distributed")
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    first, second = finished(
        [
            start(args, SLURM_PROCID=str(r), SLURM_LOCALID=str(r), **job)
            for r in range(2)
        ]
    )
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "Test  accuracy" in first[1]
    assert "Report: " in first[1]
    assert "accuracy" not in second[1]
    assert "Report" not in second[1]
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    assert len(list((run / "tensorboard").iterdir())) == 2  # Scalars and pictures.
    assert (run / "report.html").exists()
    assert list((run / "samples").glob("*.png"))
    assert_same_run(run, single)


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_one_process_resumes(script, tmp_path):
    run = tmp_path / "run"
    processes = start_two(segjax_train(script, run, "--steps", 4000))
    while not (run / "metrics.jsonl").exists() or not records(run):
        assert all(p.poll() is None for p in processes), finished(processes)
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    ends = finished(processes)
    assert [code for code, *_ in ends] == [143, 143], ends
    said = [end[2].splitlines()[-1] for end in ends]
    assert said[0] == said[1]
    assert "stopped by SIGTERM at step" in said[0]
    step = int(said[0].split("step ")[1].split(";")[0])

    # One process with four devices resumes the run of two processes.
    steps = step + 12 - step % 6
    train.train(
        made(steps=steps), run=run, resume=True, console=Console(file=io.StringIO())
    )
    whole = tmp_path / "whole"
    train.train(made(steps=steps), run=whole, console=Console(file=io.StringIO()))
    one, two = state_of(run, steps), state_of(whole, steps)
    assert scenes.relative_difference(one.params, two.params) < 1e-4
    assert scenes.relative_difference(one.opt_state, two.opt_state) < 1e-3


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_resumes_on_one(script, single, tmp_path):
    run = tmp_path / "run"
    train.train(made(steps=6), run=run, console=Console(file=io.StringIO()))
    ((code, _, errors),) = finished([start(segjax_train(script, run, "--resume"))])
    assert code == 0, errors
    assert_same_run(run, single)


@pytest.mark.slow
def test_an_error_ends_both_with_one_line(script, single):
    """Only the first process checks the run folder; it broadcasts the error."""
    ends = finished(start_two(segjax_train(script, single)))
    for code, _, errors in ends:
        assert code == 2
        assert "has a run already" in errors.splitlines()[-1]
        assert "Traceback" not in errors


def test_rows_of_two_processes_are_the_batch_in_order():
    data = made().data
    streams = [
        data.train_batches(batch_size=8, seed=0, process_index=r, process_count=2)
        for r in range(2)
    ]
    whole = next(data.train_batches(batch_size=8, seed=0))
    halves = [next(s) for s in streams]
    for name, x in whole.items():
        np.testing.assert_array_equal(np.concatenate([h[name] for h in halves]), x)
