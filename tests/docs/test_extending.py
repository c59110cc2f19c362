"""Every example of docs/extending.md runs as printed, and does what its text says."""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from tests.docs.blocks import blocks

PAGE = "extending.md"
BLOCKS = blocks(PAGE)


def log(name, kind="train"):
    path = pathlib.Path("runs") / name / "metrics.jsonl"
    records = map(json.loads, path.read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def falls(name):
    """Whether the loss of the last line is well below that of the first."""
    lines = [record["loss"] for record in log(name)]
    return lines[-1] < 0.9 * lines[0]


def states(example, steps):
    """State before the first update of an experiment, and after some; and variables."""
    from segjax import train

    experiment = example["experiment"]
    step = train.build_step(experiment)
    batches = experiment.data.train_batches(
        batch_size=experiment.config.batch_size, seed=experiment.config.seed
    )
    with contextlib.closing(batches):
        batch = next(batches)
        init = train.initializer(experiment, train.batch_spec(batch))
        first = init(jax.random.key(experiment.config.seed))
        update = train.jit_step(step, train.make_mesh(jax.devices()[:1]))
        state = jax.tree.map(jax.numpy.copy, first)
        for _ in range(steps):
            state, _ = update(state, batch)
            batch = next(batches)
    return first, state, step.variables(state)


def moved(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


def check_loss(example):
    assert falls("loss")
    line = log("loss")[0]
    np.testing.assert_allclose(line["loss"], line["loss/brier"] + line["loss/dice"])
    # By hand: certain and wrong is 2, certain and right 0, over the valid pixels.
    logits = np.array([[[[99.0, 0.0], [99.0, 0.0], [0.0, 99.0]]]])
    labels = np.zeros((1, 1, 3), np.int32)
    valid = np.array([[[True, False, True]]])
    np.testing.assert_allclose(example["brier"](logits, labels, valid), [1.0])


def check_metric(example):
    assert 0 <= example["result"]["metrics"]["foreground_share"] < 0.5
    one = example["ForegroundShare"](np.float32(1), np.float32(4))
    two = example["ForegroundShare"](np.float32(3), np.float32(4))
    assert one.merge(two).compute() == {"foreground_share": 0.5}


def check_linen(example):
    first, last, _ = states(example, 1)
    assert moved(first.model_state["batch_stats"], last.model_state["batch_stats"]) > 0


def check_nnx(example):
    first, last, variables = states(example, 1)
    assert moved(first.params["conv"], last.params["conv"]) > 0
    assert moved(first.model_state["state"], last.model_state["state"]) > 0
    assert variables.keys() == {"params", "state"}


def check_equinox(example):
    first, last, variables = states(example, 1)
    assert moved(first.params["conv"], last.params["conv"]) > 0
    assert variables.keys() == {"params"}


def check_arrays(example):
    assert falls("arrays")
    assert example["result"]["metrics"]["mean_iou"] > 0.8
    assert sum(map(len, example["scenes"].splits.values())) == 200


def check_tfds(example):
    assert falls("tfds")
    scenes, digits = example["scenes"], example["data"].digits()
    assert len(scenes.splits["train"]) == 300
    for split, ours in scenes.splits.items():
        theirs = digits.splits[split]
        np.testing.assert_array_equal(ours[3]["image"], theirs[3]["image"])
        np.testing.assert_array_equal(ours[3]["label"], theirs[3]["label"] > 0)


def check_five_channels(example):
    from segjax import load

    batch = next(example["experiment"].data.train_batches(batch_size=4, seed=0))
    assert batch["image"].shape == (4, 16, 16, 5)
    assert batch["image"].dtype == np.uint16
    assert example["result"]["metrics"]["mean_iou"] > 0.9
    # As stored: what maps the numbers to [0, 1] is in the model.
    image = np.full((16, 16, 5), [200, 900, 300, 400, 800], np.uint16)
    assert (load("runs/five-channels").predict(image).labels == 0).mean() > 0.9


def check_weight_map(example):
    assert falls("weight-map")
    batch = next(example["experiment"].data.train_batches(batch_size=8, seed=0))
    assert batch["instances"].max() > 1
    weights = np.asarray(example["border"](batch))
    assert weights.shape == batch["label"].shape
    np.testing.assert_array_equal(weights[batch["instances"] > 0], 1)
    assert weights[batch["instances"] == 0].max() > 1.5


def check_mean_teacher(example):
    assert falls("mean-teacher")
    assert all(0 < line["loss/consistency"] < 1 for line in log("mean-teacher"))
    first, last, variables = states(example, 1)
    expected = jax.tree.map(
        lambda a, b: 0.9 * a + 0.1 * b, first.params, jax.device_get(last.params)
    )
    assert moved(variables["params"], expected) < 1e-6
    assert moved(variables["params"], last.params) > 1e-3


def check_two_optimizers(example):
    assert falls("two-optimizers")
    _, last, _ = states(example, 1)
    # Momentum after one update is the gradient, which plain SGD does not keep.
    assert max(np.abs(x).max() for x in jax.tree.leaves(last.extra)) > 0


def check_sam(example):
    assert falls("sam")
    assert {"loss", "grad_norm"} <= log("sam")[0].keys()


def check_frozen(example):
    assert falls("frozen")
    first, last, _ = states(example, 2)
    for name in example["ENCODER"]:
        assert moved(first.params[name], last.params[name]) == 0
        stats = (s.model_state["batch_stats"][name] for s in (first, last))
        assert moved(*stats) == 0
    assert moved(first.params["up0"], last.params["up0"]) > 0
    stats = (s.model_state["batch_stats"]["up0"] for s in (first, last))
    assert moved(*stats) > 0


def check_layer_wise(example):
    """One update of SGD is the rate times the gradient."""
    first, last, _ = states(example, 1)
    same = example | {
        "experiment": _with(example["experiment"], optimizer=_sgd(example["rates"]))
    }
    _, plain, _ = states(same, 1)
    for name, by in (("down0", 0.1), ("head", 1.0)):
        np.testing.assert_allclose(
            moved(first.params[name], last.params[name]),
            by * moved(first.params[name], plain.params[name]),
            rtol=1e-4,
        )


def _sgd(rates):
    import optax

    return optax.sgd(rates["decoder"])


def _with(experiment, **changes):
    import dataclasses

    return dataclasses.replace(experiment, **changes)


def check_learning_rate(example):
    rates = [line["learning_rate"] for line in log("learning-rate")]
    # Of the last update before each line: updates 2, 4, 6, 8, counted from 0.
    expected = [float(example["schedule"](step)) for step in (1, 3, 5, 7)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def check_plateau(example):
    import optax

    assert falls("plateau")
    _, last, _ = states(example, 3)
    scale = optax.tree.get(last.opt_state, "scale")
    assert scale == 1
    assert optax.tree.get(last.opt_state, "avg_value") > 0  # It saw the loss.


def check_lbfgs(example):
    assert falls("lbfgs")


def check_weights(example):
    lines = log("weights")
    assert lines[0]["loss/dice"] < lines[0]["loss/ce"]
    assert lines[-1]["loss/ce"] == 0 < lines[-1]["loss/dice"]


def check_early(example):
    # A rate of 0 never gets better than the first evaluation: the third is the end.
    stopped = example["result"]["stopped"]
    assert stopped["step"] == 12
    assert "no better mean IoU" in stopped["reason"]


def check_mlflow(example):
    logged = sys.modules["mlflow"].logged
    assert [step for step, record in logged if "loss" in record] == [*range(1, 9), 8]
    assert logged[-1][1]["mean_iou"] >= 0


def check_other_run(example):
    first, _, _ = states({"experiment": example["second"]}, 0)
    loaded = example["model"].variables["params"]
    assert moved(first.params["conv"], loaded["conv"]) == 0
    assert moved(first.params["head"], loaded["head"]) > 0.01


CHECKS = {
    "A loss": check_loss,
    "A metric": check_metric,
    "A model in linen": check_linen,
    "A model in Flax NNX": check_nnx,
    "A model in Equinox": check_equinox,
    "Arrays in memory": check_arrays,
    "A data set of TFDS": check_tfds,
    "Five channels of 16 bits": check_five_channels,
    "A weight map": check_weight_map,
    "Mean teacher": check_mean_teacher,
    "Two optimizers": check_two_optimizers,
    "Sharpness-aware minimization": check_sam,
    "Frozen layers and their statistics": check_frozen,
    "Layer-wise learning rates": check_layer_wise,
    "The learning rate in the log": check_learning_rate,
    "Reduce the rate on plateaus": check_plateau,
    "L-BFGS": check_lbfgs,
    "Loss weights that change": check_weights,
    "Early stopping": check_early,
    "Logging to MLflow": check_mlflow,
    "Starting from another run": check_other_run,
}
SLOW = ("Frozen layers and their statistics", "L-BFGS")


@pytest.fixture
def mlflow(monkeypatch):
    """A fake module that records what is logged, as (step, record)."""
    module = types.ModuleType("mlflow")
    module.logged = []
    module.start_run = contextlib.nullcontext
    module.log_metrics = lambda record, step: module.logged.append((step, record))
    monkeypatch.setitem(sys.modules, "mlflow", module)


@pytest.mark.parametrize(
    "heading",
    [pytest.param(h, marks=[pytest.mark.slow] * (h in SLOW)) for h in BLOCKS],
)
def test_block(heading, tmp_path, monkeypatch, mlflow):
    missing = importlib.util.find_spec("equinox") is None
    if "equinox" in BLOCKS[heading] and missing and not os.environ.get("CI"):
        pytest.skip("needs the equinox extra: pip install equinox")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGJAX_DATA_DIR", raising=False)
    example = {"__name__": "example"}
    exec(compile(BLOCKS[heading], f"{PAGE}, {heading}", "exec"), example)
    CHECKS[heading](example)


def test_every_block_is_short_and_checked():
    assert BLOCKS.keys() == CHECKS.keys()
    for heading, source in BLOCKS.items():
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) < 40, heading
        assert max(map(len, lines)) <= 88, heading
