"""`segjax verify` reports "equal", or the first stream that differs."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from segjax import cli, data, losses
from tests.cli.conftest import expect_one_error_line, write_scenes

SCRIPT = '''"""Scenes, mirrored at random."""

import pathlib

import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *, source: pathlib.Path, steps: int = 8, num_workers: int = 0, seed: int = 0
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and masks/.
        steps: Optimizer updates in total.
        num_workers: Reader processes.
        seed: Seeds everything.
    """
    scenes = data.folder(source)
    return train.Experiment(
        config=train.TrainConfig(steps=steps, batch_size=8, seed=seed, samples=1),
        data=data.Pipeline(dataset=scenes, size=16, num_workers=num_workers),
        augment=data.augment.horizontal_flip,
        model=models.SimpleCNN(num_classes=len(scenes.classes), width=8),
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optax.adam(1e-2),
        metric=metrics.semantic(scenes.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A run with its own source folder."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "scenes.py").write_text(SCRIPT)
    source = write_scenes(folder / "scenes", 30)
    args = ["train", folder / "scenes.py", "--source", source, "--run", folder / "run"]
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in args])
    assert not exit_.value.code
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(trained / "run", tmp_path / "run")


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def results(got):
    """Parses the table: {stream: result}."""
    rows = [line.split("│")[1:4] for line in got.out.splitlines() if "│" in line]
    return {stream.strip(): result.strip() for stream, _, result in rows}


def expect_differs(got, stream, *words):
    """Asserts exit code 1, the stream in the last line, and equal streams before it."""
    assert got.code == 1, got
    last = got.out.strip().splitlines()[-1]
    assert last.startswith(f"differs: {stream}."), got.out
    for word in words:
        assert word in last, last
    streams = ["initialization", "data", "augmentation", "arithmetic"]
    before = streams[: streams.index(stream)]
    found = results(got)
    assert [found[s] for s in before] == ["equal"] * len(before)
    assert found[stream].startswith("differs: ")


def notes(got):
    """Lines on standard error, without those of sources edited while tests run."""
    said = ("segjax is not the code", "note: executing ")
    return [x for x in got.err.splitlines() if not any(y in x for y in said)]


def test_equal(segjax, run):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    got = segjax("verify", run)
    assert got.code == 0, got
    assert got.out.strip().splitlines()[-1] == "equal"
    assert "updates 1 to 5" in got.out
    assert set(results(got).values()) == {"equal"}
    assert not notes(got)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_fewer_updates(segjax, run):
    got = segjax("verify", run, "--first", "2")
    assert got.code == 0, got
    assert "updates 1 to 2" in got.out


def test_a_data_file_was_changed(segjax, run, trained, tmp_path):
    source = shutil.copytree(trained / "scenes", tmp_path / "scenes")
    path = source / "images/07.png"
    image = np.array(Image.open(path))
    image[3, 3, 0] ^= 1
    Image.fromarray(image).save(path)
    got = segjax("verify", run, "--source", source)
    expect_differs(got, "data", "fingerprint differs")


def test_the_same_data_elsewhere(segjax, run, trained, tmp_path):
    source = shutil.copytree(trained / "scenes", tmp_path / "scenes")
    assert segjax("verify", run, "--source", source).code == 0


def test_the_reader_was_changed(segjax, run, monkeypatch):
    read = data.Pipeline.train_batches

    def shifted(self, *, first_batch=0, **kwargs):
        return read(self, first_batch=first_batch + 1, **kwargs)

    monkeypatch.setattr(data.Pipeline, "train_batches", shifted)
    got = segjax("verify", run)
    expect_differs(got, "data", "fingerprint is the same")


def test_the_augmentation_was_changed_in_the_script(segjax, run):
    script = run / "experiment.py"
    edit(script, "data.augment.horizontal_flip", "lambda key, example: example")
    got = segjax("verify", run, "--trust")
    expect_differs(got, "augmentation", "the augmentation is another")
    assert f"note: {script} was changed after the run began" in got.err


def test_the_augmentation_was_changed_in_segjax(segjax, run, monkeypatch):
    flip = data.augment.horizontal_flip

    def other(key, example):
        return flip(jax.random.fold_in(key, 1), example)

    monkeypatch.setattr(data.augment, "horizontal_flip", other)
    expect_differs(segjax("verify", run), "augmentation")


def test_the_seed_was_changed(segjax, run):
    got = segjax("verify", run, "--seed", "3")
    expect_differs(got, "initialization", "The seed is 3, that of the run was 0.")
    assert "note: seed: 0 in the run, 3 here" in got.err


def test_the_seed_was_changed_in_the_manifest(segjax, run):
    manifest = json.loads((run / "run.json").read_text())
    manifest["flags"]["seed"] = 4
    (run / "run.json").write_text(json.dumps(manifest))
    expect_differs(segjax("verify", run), "initialization", "The seed is 4")


def test_the_loss_was_changed_in_the_script(segjax, run):
    edit(run / "experiment.py", "losses.cross_entropy", "losses.soft_dice")
    got = segjax("verify", run, "--trust")
    expect_differs(got, "arithmetic", "another program", "loss of update 1 was")


def test_the_loss_was_changed_in_segjax_by_a_millionth(segjax, run, monkeypatch):
    entropy = losses.cross_entropy

    def other(logits, labels, valid):
        return entropy(logits, labels, valid) * (1 + 1e-6)

    monkeypatch.setattr(losses, "cross_entropy", other)
    expect_differs(segjax("verify", run), "arithmetic", "another program")


def test_the_optimizer_was_changed(segjax, run):
    edit(run / "experiment.py", "optax.adam(1e-2)", "optax.sgd(1e-2)")
    got = segjax("verify", run, "--trust")
    expect_differs(got, "arithmetic", "equal, but not its parameters")


def test_the_model_was_changed(segjax, run):
    edit(run / "experiment.py", "width=8", "width=12")
    got = segjax("verify", run, "--trust")
    expect_differs(got, "initialization", "the model or a version is another")
    assert "note: model: SimpleCNN" in got.err


def test_possible_causes_of_a_difference_are_noted(segjax, run):
    manifest = json.loads((run / "run.json").read_text())
    manifest["versions"]["jax"] = "0.0.1"
    manifest["cores"] = 96
    manifest["devices"] = ["gpu:0 Some GPU", "gpu:1 Some GPU"]
    manifest["code"]["segjax"] = "of another day"
    (run / "run.json").write_text(json.dumps(manifest))
    got = segjax("verify", run)
    assert got.code == 0  # Notes do not affect the result.
    lines = got.err.splitlines()
    assert f"note: jax: 0.0.1 in the run, {jax.__version__} here" in lines
    assert any(line.startswith("note: cores: 96 in the run, ") for line in lines)
    assert "note: devices: 2 x Some GPU in the run, 4 x cpu here" in lines
    assert any(line.startswith("note: segjax is not the code") for line in lines)


def test_the_fault_flags_of_the_run_are_used_again(segjax, trained, tmp_path):
    run, source = tmp_path / "run", trained / "scenes"
    flags = ["--source", source, "--run", run, "--on-nonfinite", "skip"]
    got = segjax("train", trained / "scenes.py", *flags, "--skip-corrupt", "2")
    assert got.code == 0, got
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["config"]["skip_nonfinite"] == 8
    assert manifest["data"]["skip_corrupt"] == 2
    got = segjax("verify", run)
    assert got.code == 0, got
    assert not notes(got)


def test_the_deterministic_flag_of_the_run_is_used_again(segjax, run, monkeypatch):
    manifest = json.loads((run / "run.json").read_text())
    manifest["xla_flags"] += " --xla_gpu_deterministic_ops=true"
    (run / "run.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    got = segjax("verify", run)
    assert got.code == 0, got
    assert os.environ["XLA_FLAGS"].endswith("--xla_gpu_deterministic_ops=true")
    assert not notes(got)


def test_seeds_trained_together_are_noted(segjax, run):
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"seeds_together": [0, 5]}))
    got = segjax("verify", run)
    assert got.code == 0
    assert notes(got)[0].startswith("note: seeds 0, 5 were trained by one program")


@pytest.mark.parametrize("asked", ["6", "0", "-1"])
def test_more_updates_than_the_run_kept(segjax, run, asked):
    got = segjax("verify", run, f"--first={asked}")
    expect_one_error_line(got, "--first", "1 to 5", asked)


def test_a_run_without_digests(segjax, run):
    manifest = json.loads((run / "run.json").read_text())
    del manifest["digests"]
    (run / "run.json").write_text(json.dumps(manifest))
    expect_one_error_line(segjax("verify", run), run, "no digests")


def test_no_run(segjax, tmp_path):
    expect_one_error_line(segjax("verify"), "run folder", "verify")
    expect_one_error_line(segjax("verify", tmp_path), tmp_path, "run.json")


@pytest.mark.slow
def test_fresh_processes(trained, tmp_path, data_dir):
    """One seed in two processes, from two folders, with 0 and 2 workers, is equal bit
    for bit; another seed differs; a third process verifies as equal."""
    started = {}
    for name, flags in (("a", ""), ("b", "--num-workers 2"), ("c", "--seed 1")):
        script = tmp_path / name / "deeper" / f"{name}.py"
        script.parent.mkdir(parents=True)
        script.write_text("\n" * len(started) + SCRIPT)  # Shifts the line numbers.
        args = ["--source", trained / "scenes", "--run", tmp_path / name / "run"]
        started[name] = subprocess.Popen(
            [sys.executable, script, *args, *flags.split()],
            cwd=script.parent,
            stderr=subprocess.PIPE,
        )
    for process in started.values():
        assert process.wait(300) == 0, process.stderr.read()
        process.stderr.close()
    found = {
        name: json.loads((tmp_path / name / "run/run.json").read_text())["digests"]
        for name in started
    }
    assert found["a"] == found["b"]
    same = found["a"].keys() - {"steps", "program"}
    assert not [k for k in same if found["a"][k] == found["c"][k]]
    assert found["a"]["program"] == found["c"]["program"]
    assert not set(found["a"]["data"]) & set(found["c"]["data"])
    assert not set(found["a"]["augmentation"]) & set(found["c"]["augmentation"])
    command = "import sys; from segjax import cli; cli.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", command, "verify", tmp_path / "b/run"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    assert done.stdout.strip().endswith("equal")


def test_every_test_that_the_page_names_exists():
    root = pathlib.Path(__file__).parents[2]
    page = (root / "docs/reproducibility.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page))
    assert len(named) > 30
    assert len(re.findall(r"`tests/[^`]*::[^`]*`", page)) == page.count("::")
    for path, function in sorted(named):
        assert f"\ndef {function}(" in (root / path).read_text(), (path, function)
