"""Flags for non-finite updates, corrupt records and determinism."""

import json
import os

import pytest

from segjax import train
from segjax.cli import process
from segjax.cli import train as command
from tests.scenes import experiment


def test_updates_that_are_not_finite_are_counted(segjax, script, source, tmp_path):
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run, "--steps", "20"]
    flags += ["--learning-rate", "1e38", "--on-nonfinite", "skip"]
    got = segjax("train", script, *flags)
    assert got.code == 0, got.err
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    counts = [line.get("skipped", 0) for line in lines if line["kind"] == "train"]
    assert counts == sorted(counts)
    assert 0 < counts[-1] < 20


def test_skip_corrupt_reaches_the_pipeline():
    options = command.TrainOptions(skip_corrupt=3)
    made = experiment()
    assert command._with_options(made, options).data.skip_corrupt == 3
    assert command._with_options(made, command.TrainOptions()) is made


def test_skip_corrupt_needs_a_pipeline():
    pipeline = experiment().data

    class OtherData:
        """The same data, in a class of the user's."""

        classes, splits = pipeline.classes, pipeline.splits
        num_examples = staticmethod(pipeline.num_examples)
        train_batches = staticmethod(pipeline.train_batches)
        eval_batches = staticmethod(pipeline.eval_batches)
        fingerprint = staticmethod(pipeline.fingerprint)

    made = train.Experiment(**(vars(experiment()) | {"data": OtherData()}))
    with pytest.raises(ValueError, match=r"--skip-corrupt needs .* got OtherData"):
        command._with_options(made, command.TrainOptions(skip_corrupt=1))


@pytest.mark.parametrize("before", ["", "--xla_dump_to=here"])
def test_deterministic_operations_are_added_to_the_users_flags(monkeypatch, before):
    monkeypatch.setenv("XLA_FLAGS", before)
    for _ in range(2):
        process.use_deterministic_operations()
        wanted = f"{before} --xla_gpu_deterministic_ops=true".strip()
        assert os.environ["XLA_FLAGS"] == wanted
