"""`segjax sweep`: what --search says, trials in processes, kills, and a better setting.

Most tests replace `segjax train` by a small program that writes a run folder, since a
process that imports JAX takes seconds.
"""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import optuna
import pytest

from segjax.cli import sweep, sweep_report, sweep_space, sweep_trials
from tests.cli.conftest import expect_one_error_line

FAKE = '''"""Trains nothing: the score is a function of the learning rate."""

import json, math, pathlib, sys, time

args = dict(zip(sys.argv[2::2], sys.argv[3::2]))
run, rate = pathlib.Path(args["--run"]), float(args["--learning-rate"])
if rate > 0.5:
    sys.exit("error: the loss is not finite.")
run.mkdir(parents=True, exist_ok=True)
(run / "run.json").write_text("{}")
with (run / "metrics.jsonl").open("a") as log:
    for step in (1, 2, 3):
        time.sleep(SECONDS)
        score = 1 - abs(math.log10(rate) + 2) / 10 + step / 100
        for split in ("validation", "test"):
            value = score if split == "validation" else 0.9
            record = {"kind": "eval", "step": step, "split": split, "mean_iou": value}
            log.write(json.dumps(record) + "\\n")
        log.flush()
(run / "result.json").write_text("{}")
'''


def build(*, learning_rate: float = 1e-6, width: int = 8, steps: int = 9,
          size: tuple[int, int] = (4, 4), norm: bool = True, name: str = "x",
          layers: int | None = None, seed: int = 0):  # fmt: skip
    """An experiment's function, for its signature."""


@pytest.fixture
def plan(tmp_path):
    """Makes a plan whose trials are the fake program's."""

    def make(*search, seconds=0.0, folder="sweep", resume=False, **options):
        program = tmp_path / "fake.py"
        program.write_text(FAKE.replace("SECONDS", str(seconds)))
        given = sweep.SweepOptions(
            search=search or ("learning_rate=1e-4..1e-1:log",),
            out=tmp_path / folder,
            resume=resume,
            **options,
        )
        made = sweep_trials.Plan(
            study=sweep._study(given.out, given, maximize=True, steps=3),
            space=[sweep_space.parse(text, build) for text in given.search],
            command=["train"],
            build=build,
            folder=given.out,
            seeds=given.seeds,
            monitor="mean_iou",
            split="validation",
            prune=given.prune,
            program=(sys.executable, str(program)),
        )
        return made, given

    return make


def settings_of(plan):
    return [row.settings for row in sweep_report.rows_of(plan)]


# --- What --search says. ---


def test_ranges_and_choices():
    one = sweep_space.parse("learning-rate=1e-4..1e-2:log", build)
    assert one == sweep_space.Range("learning_rate", 1e-4, 1e-2, True, False)
    assert sweep_space.parse("width=8..64", build).whole
    assert sweep_space.parse("layers=1..4", build).ends() == ("1", "4")
    chosen = sweep_space.parse("size=4 4,8 16", build)
    assert chosen == sweep_space.Choice("size", ("4 4", "8 16"))
    assert sweep_space.parse("learning_rate=-1..-0.5", build).low == -1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate", "--search needs learning_rate=1e-4..1e-2:log"),
        ("depth=1,2", "no setting depth, only learning_rate, width"),
        ("seed=0,1", "Give --seeds 0 1 2"),
        ("width=8", "at least two different values"),
        ("width=8,8", "at least two different values"),
        ("width=8,,9", "at least two different values"),
        ("width=1.5..8", "takes whole numbers"),
        ("width=9..8", "a smaller number before a larger one"),
        ("width=a..b", "needs numbers"),
        ("learning_rate=0..1:log", "numbers above 0"),
        ("name=1..2", "is no number"),
    ],
)
def test_what_cannot_be_searched_is_one_line(text, words):
    with pytest.raises(ValueError, match=words) as error:
        sweep_space.parse(text, build)
    assert "\n" not in str(error.value)


def test_settings_become_flags():
    values = {
        "learning_rate": 0.1,
        "width": 8,  # The default.
        "size": "8 16",
        "norm": "false",
        "layers": None,
        "steps": 5,
    }
    assert sweep_space.as_flags(build, values) == [
        *("--learning-rate", "0.1", "--size", "8", "16"),
        *("--no-norm", "--steps", "5"),
    ]
    assert sweep_space.as_flags(build, {"size": (3, 3)}) == ["--size", "3", "3"]


# --- Trials. ---


def test_all_trials_end_and_the_best_is_found(plan, capfd):
    made, options = plan(trials=12, seeds=(0, 1))
    sweep._run(made, options)
    best = sweep_report.write(made)
    rows = sweep_report.rows_of(made)
    assert len(rows) == 12
    complete = [row for row in rows if row.state == "complete"]
    assert best == max(complete, key=lambda row: row.value).settings
    assert abs(best["learning_rate"] - 1e-2) < 9e-3
    assert max(row.value for row in complete) > 0.98  # By validation, not by test.
    assert (made.folder / "trial-0000/seed-1/result.json").exists()
    with (made.folder / "sweep.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(r["learning_rate"]) for r in written] == [
        row.settings["learning_rate"] for row in rows
    ]
    assert (made.folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    out = capfd.readouterr().out
    assert "mean_iou on validation, mean of 2 seeds: the best trials" in out


def test_bad_trials_are_pruned(plan):
    made, options = plan("learning_rate=1e-9..1e-2:log", trials=8, seconds=0.7)
    options = sweep.dataclasses.replace(options, jobs=4)
    sweep._run(made, options)
    rows = sweep_report.rows_of(made)
    assert {row.state for row in rows} == {"complete", "pruned"}
    pruned = [row.settings["learning_rate"] for row in rows if row.state == "pruned"]
    best = max(rows, key=lambda row: row.value or 0)
    assert max(pruned) < best.settings["learning_rate"]


def test_each_of_few_combinations_is_tried_once(plan):
    made, options = plan("learning_rate=1e-3,1e-2", "width=8..10", trials=20)
    sweep._run(made, options)
    tried = [tuple(settings.values()) for settings in settings_of(made)]
    assert len(tried) == 6
    assert set(tried) == {(r, w) for r in ("1e-3", "1e-2") for w in (8, 9, 10)}


def test_a_setting_is_not_trained_twice(plan, capfd):
    made, options = plan("learning_rate=1e-3,2e-3,3e-3,1e-2,2e-2", trials=4)
    for rate in ("1e-3", "1e-3", "2e-3", "2e-3"):
        made.study.enqueue_trial({"learning_rate": rate})
    options = sweep.dataclasses.replace(options, trials=4)
    for _ in range(4):
        trial = made.study.ask()
        settings = {d.name: d.suggest(trial) for d in made.space}
        print(sweep_trials.train(made, trial, settings))
    out = capfd.readouterr().out
    assert out.count("as trial 0") == out.count("as trial 2") == 1
    assert len({row.value for row in sweep_report.rows_of(made)}) == 2


def test_failures_are_told_and_do_not_end_the_sweep(plan, capfd):
    made, options = plan("learning_rate=1e-2,2e-2,0.9", trials=6)
    sweep._run(made, options)
    rows = sweep_report.rows_of(made)
    assert {row.state for row in rows} == {"complete", "failed"}
    (error,) = {row.error for row in rows if row.state == "failed"}
    assert error == "the loss is not finite."
    assert "failed: the loss is not finite." in capfd.readouterr().out


def test_a_sweep_whose_trials_all_fail_ends(plan):
    made, options = plan("learning_rate=0.8..0.9", trials=20)
    with pytest.raises(ValueError, match=r"All 3 trials have failed.*not finite"):
        sweep._run(made, options)


def test_jobs_are_side_by_side(plan):
    made, options = plan(trials=4, jobs=2, seconds=0.5, prune=False)
    began = time.monotonic()
    sweep._run(made, options)
    took = time.monotonic() - began
    rows = sweep_report.rows_of(made)
    assert [row.state for row in rows] == ["complete"] * 4
    assert took < 0.8 * sum(row.seconds for row in rows)


def test_two_processes_share_a_sweep(plan):
    one, options = plan(trials=6, seconds=0.2, prune=False)
    two, joined = plan(trials=6, seconds=0.2, prune=False, resume=True)
    threads = [
        threading.Thread(target=sweep._run, args=pair)
        for pair in ((one, options), (two, joined))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = sweep_report.rows_of(one)
    assert [row.state for row in rows].count("complete") >= 6
    assert len({row.settings["learning_rate"] for row in rows}) == len(rows)
    assert len(rows) <= 7  # Both may ask for the last one at the same time.


def test_killed_and_resumed_it_tries_the_same_settings(plan, tmp_path):
    whole, options = plan(trials=5, folder="whole", prune=False)
    sweep._run(whole, options)
    made, options = plan(trials=5, seconds=0.4, prune=False)
    code = (
        "import sys; sys.path.insert(0, '.');"
        "from tests.cli.test_sweep import work_for_ever as work; work(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = pathlib.Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root) as child:
        while not (made.folder / "trial-0002/seed-0/metrics.jsonl").exists():
            assert child.poll() is None
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
    again, options = plan(trials=5, prune=False, resume=True)
    assert [row.state for row in sweep_report.rows_of(again)][2] == "running"
    sweep._run(again, options)
    rows = sweep_report.rows_of(again)
    assert [row.state for row in rows] == ["complete"] * 5
    assert settings_of(again) == settings_of(whole)


def work_for_ever(folder):
    """What the killed process does: the same as `plan`."""
    folder = pathlib.Path(folder)
    options = sweep.SweepOptions(
        search=("learning_rate=1e-4..1e-1:log",),
        out=folder / "sweep",
        resume=True,
        trials=5,
        prune=False,
    )
    made = sweep_trials.Plan(
        study=sweep._study(options.out, options, maximize=True, steps=3),
        space=[sweep_space.parse(options.search[0], build)],
        command=["train"],
        build=build,
        folder=options.out,
        seeds=(0,),
        monitor="mean_iou",
        split="validation",
        prune=False,
        program=(sys.executable, str(folder / "fake.py")),
    )
    sweep._run(made, options)


def test_interrupted_trials_are_not_failed(plan):
    made, options = plan(trials=3, seconds=30)
    thread = threading.Timer(3, made.stopped.set)
    thread.start()
    sweep._run(made, options)
    assert [row.state for row in sweep_report.rows_of(made)] == ["running"]
    assert sweep_trials.abandoned(made) == [0]


def test_values_are_not_reported_again_after_a_resume(plan, tmp_path):
    made, options = plan(trials=1, seconds=1.5)

    def stop():
        while not any(t.intermediate_values for t in made.study.get_trials()):
            time.sleep(0.05)
        made.stopped.set()

    threading.Thread(target=stop).start()
    sweep._run(made, options)
    (trial,) = made.study.get_trials()
    assert list(trial.intermediate_values) == [1]
    again, options = plan(trials=1, resume=True)
    sweep._run(again, options)  # A warning would be an error.
    (trial,) = again.study.get_trials()
    assert list(trial.intermediate_values)[:1] == [1]
    assert trial.state.name == "COMPLETE"


def test_a_torn_or_foreign_line_of_the_log_is_passed_over(tmp_path):
    log = sweep_trials.Log(tmp_path / "metrics.jsonl", "mean_iou", "validation")
    assert list(log.new()) == []
    good = {"kind": "eval", "step": 1, "split": "validation", "mean_iou": 0.5}
    lines = [json.dumps(good), "[1]", "{", json.dumps(good | {"mean_iou": None})]
    torn = json.dumps(good | {"step": 2})
    log.path.write_text("\n".join([*lines, torn]))
    assert list(log.new()) == [(1, 0.5)]
    with log.path.open("a") as file:
        file.write("\n")
    assert list(log.new()) == [(2, 0.5)]
    log.path.write_text(json.dumps(good | {"step": 3}) + "\n")  # Cut, then resumed.
    assert list(log.new()) == [(3, 0.5)]
    assert list(log.read()) == [(3, 0.5)]
    assert list(log.new()) == []


# --- The command. ---


def test_a_bad_default_is_beaten(segjax, script, source, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "sweep"
    flags = ["--source", source, "--steps", 12, "--trials", 4, "--out", out]
    search = ["--search", "learning_rate=1e-6..3e-2:log"]
    got = segjax("sweep", script, *flags, *search)
    assert got.code == 0, got.err
    assert "4 trials: " in got.out
    train_it = next(x for x in got.out.splitlines() if x.startswith("Train it: "))
    assert f"segjax train {script} --source {source} --steps 12" in train_it
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out}/sweep.db")
    bad = tmp_path / "bad"
    rate = ["--learning-rate", "1e-6"]
    flags = ["--source", source, "--steps", 12, "--run", bad]
    assert segjax("train", script, *flags, *rate).code == 0
    log = sweep_trials.Log(bad / "metrics.jsonl", "mean_iou", "validation")
    assert study.best_value > max(value for _, value in log.read()) + 0.05
    run = out / f"trial-{study.best_trial.number:04d}" / "seed-0"
    assert segjax("verify", run).code == 0


def test_messages(segjax, script, source, tmp_path, without):
    own = ["--source", source, "--out", tmp_path / "sweep"]
    search = ["--search", "learning_rate=1e-4..1e-2:log"]

    def line(*args, words):
        expect_one_error_line(segjax("sweep", *args), words)

    line(words="needs an experiment script first")
    line(script, *own, "--search", "depth=1,2", words="has no setting depth")
    line(script, *own, *search, search[1], words="has learning_rate twice")
    line(script, *own, *search, "--learning-rate", 1, words="Leave one out")
    line(script, *own, "--search", "width=a,b", words="--width")
    line(script, *own, *search, "--jobs", 0, words="--jobs needs at least 1")
    line(script, *own, *search, "--resume", words="has no sweep.db")
    line(script, *own, *search, "--seed", 1, words="--seed")
    assert not (tmp_path / "sweep").exists()
    without("optuna")
    line(script, *own, *search, words='pip install "segjax[sweep]"')
