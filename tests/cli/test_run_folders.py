"""Damaged or untrusted run folders, wrong flags, and Ctrl-C."""

import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

import segjax
from segjax.cli import errors
from tests.cli.conftest import SCRIPT, expect_one_error_line, write_scenes


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def best_of(run):
    return json.loads((run / "result.json").read_text())["best_step"]


def mark(run, tmp_path):
    """Makes a run's script create a file when it is executed."""
    path, done = run / "experiment.py", tmp_path / "executed"
    path.write_text(f"open({str(done)!r}, 'w').close()\n" + path.read_text())
    return done


@pytest.mark.parametrize("subcommand", ["evaluate", "verify", "inspect"])
def test_a_script_that_was_changed_is_executed_if_trusted(
    segjax, copy, tmp_path, subcommand
):
    done = mark(copy, tmp_path)
    script = copy / "experiment.py"
    expect_one_error_line(segjax(subcommand, copy), script, "--trust")
    got = segjax(subcommand, copy, "--help")
    assert got.code == 0
    assert "--trust" in got.out
    assert not done.exists()
    got = segjax(subcommand, copy, "--trust", "--help")
    assert got.code == 0
    assert "--learning-rate" in got.out
    assert f"note: executing {script}." in got.err
    assert done.exists()


def test_a_run_of_another_home_is_a_strangers(segjax, run, tmp_path, monkeypatch):
    assert f"note: executing {run / 'experiment.py'}." in segjax("evaluate", run).err
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    expect_one_error_line(segjax("evaluate", run), "--trust")
    assert segjax("evaluate", run, "--trust").code == 0


def test_where_the_script_came_from_is_signed_too(segjax, copy, tmp_path):
    """Scripts may import modules from the original's folder, so its path is signed."""
    path = copy / "run.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"script": str(tmp_path / "evil/x.py")}))
    expect_one_error_line(segjax("evaluate", copy), "--trust")


@pytest.mark.parametrize("damage", ["digests", "all", "arrays"])
def test_another_checkpoint_is_never_taken_for_the_best(segjax, copy, damage):
    path = copy / "checkpoints" / str(best_of(copy))
    assert len(list((copy / "checkpoints").iterdir())) >= 2
    if damage == "all":
        shutil.rmtree(path)
    elif damage == "arrays":
        os.truncate(path / "arrays/state/_METADATA", 10)
    else:
        (path / "checksums.json").write_bytes(b"{")
    expect_one_error_line(segjax("evaluate", copy), path)


def test_another_checkpoint_is_never_taken_for_the_last(segjax, copy):
    last = max((copy / "checkpoints").iterdir(), key=lambda p: int(p.name))
    shutil.rmtree(last)
    expect_one_error_line(segjax("evaluate", copy, "--checkpoint", "last"), last)


def test_a_script_that_is_not_python(segjax, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = (\n")
    expect_one_error_line(segjax("train", path), path, "line 1")


def test_checkpoint_last_evaluates_the_last(segjax, copy):
    steps = sorted(int(p.name) for p in (copy / "checkpoints").iterdir())
    (copy / f"checkpoints/{steps[0]}/checksums.json").unlink()
    got = segjax("evaluate", copy)
    expect_one_error_line(got, f"checkpoints/{steps[0]}", "--checkpoint last")
    assert segjax("evaluate", copy, "--checkpoint", "last").code == 0


@pytest.mark.parametrize("flag", ["--steps", "--width", "--batch-size"])
def test_a_flag_of_zero(segjax, script, source, tmp_path, flag):
    got = segjax(
        "train", script, "--source", source, "--run", tmp_path / "run", flag, 0
    )
    expect_one_error_line(got)


def test_a_schedule_that_optax_refuses(segjax, tmp_path, source):
    path = tmp_path / "scheduled.py"
    path.write_text(
        SCRIPT.replace(
            "optax.adam(learning_rate)",
            "optax.adam(optax.cosine_decay_schedule(learning_rate, steps - 1))",
        )
    )
    got = segjax("train", path, "--source", source, "--steps", 1)
    expect_one_error_line(
        got, "cannot be built from its flags", "decay", "SEGJAX_TRACEBACK=1"
    )


@pytest.mark.parametrize("seed", [2**64, 2**32, -1])
def test_a_seed_out_of_range(segjax, script, source, seed):
    got = segjax("train", script, "--source", source, f"--seed={seed}")
    expect_one_error_line(got, "seed must be")


def test_seeds_without_values(segjax, script, source):
    got = segjax("seeds", script, "--source", source, "--seeds")
    expect_one_error_line(got, "--seeds 0 1 2 3")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--learningrate", "1"], ["--learningrate", "Perhaps", "--learning-rate F"]),
        (["--learning-rate", "abc"], ["'abc'", "--learning-rate FLOAT"]),
        (["--zzz"], ["--zzz", "--help"]),
    ],
    ids=str,
)
def test_a_wrong_flag_is_one_line(segjax, script, source, flags, words):
    expect_one_error_line(segjax("train", script, "--source", source, *flags), *words)


def test_a_missing_flag_is_one_line(segjax, script):
    expect_one_error_line(segjax("train", script), "--source", "required")


def test_fewer_steps_than_done(segjax, script, source, copy):
    got = segjax(
        "train", script, "--source", source, "--run", copy, "--resume", "--steps", 5
    )
    assert got.code == 2
    assert "--steps 30 or more" in got.err


def test_another_script_is_refused_unless_allowed(segjax, source, copy, tmp_path):
    path = tmp_path / "scenes.py"
    path.write_text(SCRIPT + "# Changed.\n")
    flags = ["--source", source, "--run", copy, "--resume", "--steps", 32]
    before = (copy / "run.json").read_bytes()
    got = segjax("train", path, *flags)
    assert got.code == 2
    assert "the script was" in got.err
    assert "--allow-changes" in got.err
    assert (copy / "run.json").read_bytes() == before
    assert segjax("train", path, *flags, "--allow-changes").code == 0
    (resumed,) = json.loads((copy / "run.json").read_text())["resumes"]
    assert list(resumed["changed"]) == ["script"]


def test_an_edited_script_of_the_run_is_refused(segjax, script, source, copy):
    with (copy / "experiment.py").open("a") as file:
        file.write("# Changed.\n")
    got = segjax("train", script, "--source", source, "--run", copy, "--resume")
    assert got.code == 2
    assert "the run's own experiment.py was" in got.err


def test_flags_of_another_type_are_named(segjax, copy):
    path = copy / "run.json"
    found = json.loads(path.read_text())
    found["flags"]["steps"] = "many"
    path.write_text(json.dumps(found))
    expect_one_error_line(segjax("evaluate", copy), "steps", "run.json", "`int`")


def test_names_of_classes_are_no_markup(segjax, script, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    source = write_scenes(tmp_path / "scenes", 30)
    (source / "classes.txt").write_text("background\nlane [solid]\n[red]bar[/]\n")
    run = tmp_path / "run"
    flags = ["--source", source, "--steps", 4]
    assert segjax("train", script, *flags, "--run", run).code == 0
    out = segjax("evaluate", run).out
    assert "lane [solid]" in out
    assert "[red]bar[/]" in out


def test_numbers_that_do_not_fit_in_memory_are_one_line():
    error = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."
    )
    line = errors.message(error)
    assert line == (
        "The memory is not enough (for 123 bytes). Lower --batch-size, or the size of "
        "the images."
    )
    assert errors.message(RuntimeError("else")) is None


def test_messages_do_not_steer_the_terminal():
    error = segjax.UserError("a\n\x1b[2Jb")
    assert errors.message(error) == "a ?[2Jb"


def in_process(*args, **options):
    code = "import sys; from segjax import cli; cli.main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("subcommand", ["evaluate", "train"])
def test_a_full_standard_output_is_one_line(copy, script, subcommand):
    args = (
        [subcommand, copy]
        if subcommand == "evaluate"
        else [subcommand, script, "--help"]
    )
    with open("/dev/full", "w") as full:
        process = in_process(*args, stdout=full)
        _, err = process.communicate(timeout=200)
    lines = [x for x in err.splitlines() if not x.startswith("note: ")]
    assert lines == [
        "error: Standard output could not be written: No space left on device."
    ]
    assert process.returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_a_full_standard_output_of_the_command_itself_is_one_line(flag):
    with open("/dev/full", "w") as full:
        process = in_process(flag, stdout=full)
        _, err = process.communicate(timeout=200)
    text = "error: Standard output could not be written: No space left on device.\n"
    assert (err, process.returncode) == (text, 2)


def test_a_reader_that_left_ends_the_command_quietly():
    with in_process("--help", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8, 1.3, 2.0, 2.8])
def test_ctrl_c_in_the_first_seconds(copy, seconds):
    process = in_process("evaluate", copy, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    if process.poll() is not None:
        pytest.skip("it was quicker")
    sent = time.time()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    written = [x.stat().st_mtime for x in copy.glob("evaluation-*.json")]
    had_ended = process.returncode in (0, -signal.SIGINT)
    if had_ended and max(written, default=math.inf) < sent + 0.3:
        pytest.skip("it had done its work")
    if "init_import_site" in err:
        pytest.skip("Python itself had not started")
    # Orbax's threads may print after it, while Python exits.
    lines = [x for x in err.splitlines() if not x.startswith("note: ")]
    assert lines[:1] == ["interrupted."], err
    assert process.returncode == 130


@pytest.mark.parametrize("name", ["reliability.md", "security.md"])
def test_every_test_that_the_pages_name_exists(name):
    root = pathlib.Path(__file__).parents[2]
    page = (root / "docs" / name).read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert named
    for path, function in named:
        assert f"def {function}(" in (root / path).read_text(), (path, function)
