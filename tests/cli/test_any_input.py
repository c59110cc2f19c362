"""Images of five channels, in 16 bits and as floats, from training to pictures.

An experiment with custom preprocessing, inputs and step: prediction, scores and
pictures agree with the evaluation during training.
"""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import segjax as library
from segjax import train
from segjax.cli import runs, scripts

SCRIPT = '''"""Five channels up to 12,000, in a stored dtype, with batch norm."""

import numpy as np
import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *, dtype: str = "uint16", steps: int = 20, seed: int = 0
) -> train.Experiment:
    """Builds the run.

    Args:
        dtype: As which the images are stored.
        steps: Optimizer updates in total.
        seed: Seeds everything.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (24, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    images = rng.integers(0, 3000, (24, 16, 16, 5))
    images[..., 4] += 4000 * labels.astype(int)  # Only the fifth channel tells.
    images = np.minimum(images, 12000).astype(dtype)
    images[0, 0, 0, 0] = 12000  # One bright pixel stretches nothing.
    labels[:, 0, 0] = 255
    scenes = data.from_arrays(images, labels, classes=("low", "middle", "high"))
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=8, seed=seed, eval_every=10, samples=2
        ),
        data=data.Pipeline(dataset=scenes),
        model=models.UNet(
            num_classes=3, widths=(8, 8), norm=models.layers.batch_norm
        ),
        preprocess=data.clip_window(0, 12000),
        model_inputs=INPUTS,
        augment=data.augment.horizontal_flip,
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optax.adam(2e-2),
        metric=metrics.semantic(scenes.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "five.py"
    path.write_text(SCRIPT.replace("        model_inputs=INPUTS,\n", ""))
    return path


@pytest.fixture(scope="module")
def trained(script, tmp_path_factory, data_dir):
    """A run of each dtype, made by the command line."""
    made = {}
    for dtype in ("uint16", "float32"):
        run = tmp_path_factory.mktemp("runs") / dtype
        with pytest.raises(SystemExit) as exit_:
            library.cli.main(
                ["train", str(script), "--dtype", dtype, "--run", str(run)]
            )
        assert not exit_.value.code
        made[dtype] = run
    return made


def read(path):
    return json.loads(path.read_text())


def test_equal_values_in_other_dtypes_train_equally(trained):
    """After preprocessing the batches are equal, so all later results are."""
    one, two = (read(run / "result.json") for run in trained.values())
    assert one["metrics"] == two["metrics"]
    assert one["metrics"]["mean_iou"] > 0.6  # The fifth channel is used.
    digests = [read(run / "run.json")["digests"] for run in trained.values()]
    for stream in ("initialization", "augmentation", "arithmetic"):
        assert digests[0][stream] == digests[1][stream]
    assert digests[0]["data"] != digests[1]["data"]  # As they are stored.


def test_the_model_file_records_channels_and_dtype(trained):
    for dtype, run in trained.items():
        image = read(run / "model.json")["image"]
        assert (image["channels"], image["dtype"]) == (5, dtype)
        assert image["high"] == 12000


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_subcommand(trained, segjax, tmp_path, dtype):
    run = trained[dtype]
    final = read(run / "result.json")
    assert segjax("evaluate", run).code == 0
    assert read(run / "evaluation-test-best.json")["metrics"] == final["metrics"]
    got = segjax("verify", run)
    assert (got.code, got.out.strip().endswith("equal")) == (0, True), got
    got = segjax("inspect", run, "--top", 3)
    assert got.code == 0, got.err
    rng = np.random.default_rng(1)
    image = rng.integers(0, 9000, (20, 24, 5)).astype(dtype)
    np.save(tmp_path / "scene.npy", image)
    got = segjax("predict", run, tmp_path / "scene.npy", "--out", tmp_path / "out")
    assert got.code == 0, got.err
    label = np.asarray(Image.open(tmp_path / "out/scene.png"))
    np.testing.assert_array_equal(label, library.load(run).predict(image).labels)
    for name in ("samples/00.png", "inspection-train-best.png", "report.html"):
        assert (run / name).stat().st_size > 500


def test_resume_and_seeds(script, segjax, trained, tmp_path):
    run = tmp_path / "run"
    assert segjax("train", script, "--steps", 10, "--run", run).code == 0
    assert segjax("train", script, "--steps", 20, "--run", run, "--resume").code == 0
    assert (
        read(run / "result.json")["metrics"]
        == read(trained["uint16"] / "result.json")["metrics"]
    )
    got = segjax("seeds", script, "--seeds", 0, 1, "--run", tmp_path / "seeds")
    assert got.code == 0, got.err
    found = library.load(tmp_path / "seeds/seed-1")
    assert found.classes == ("low", "middle", "high")


INPUTS = 'lambda batch: {"image": 3.0 * batch["image"] - 1.0}'


@pytest.fixture(scope="module")
def own_inputs(tmp_path_factory, data_dir):
    """A run whose model gets other inputs than the image, by the user's code."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(SCRIPT.replace("=INPUTS", f"={INPUTS}"))
    with pytest.raises(SystemExit) as exit_:
        library.cli.main(
            ["train", str(folder / "own.py"), "--run", str(folder / "run")]
        )
    assert not exit_.value.code
    return folder / "run"


@pytest.mark.parametrize("which", ["preprocess", "model_inputs"])
def test_all_subcommands_compute_the_probabilities_of_evaluation(
    trained, own_inputs, which, segjax, tmp_path
):
    run = trained["uint16"] if which == "preprocess" else own_inputs
    build = scripts.load(run / "experiment.py")
    experiment = build()
    state = runs.state_of(experiment, run)
    batch = next(experiment.data.eval_batches("test", batch_size=1))
    height, width = batch["size"][0]
    image = batch["image"][0, :height, :width]

    @jax.jit
    def evaluation(variables, batch):
        prepared = experiment.forward.prepare(batch)
        outputs, _ = experiment.forward.apply(variables, prepared, train=False)
        return jax.nn.softmax(outputs)

    want = np.asarray(evaluation(train.variables(state), batch))[0, :height, :width]
    model = library.load(run, trust=which == "model_inputs")
    np.testing.assert_array_equal(model.predict(image).probabilities, want)
    # By hand, from the stored numbers.
    x = np.clip(batch["image"].astype(np.float32), 0, 12000) / 12000
    x = x if which == "preprocess" else 3 * x - 1
    logits = experiment.model.apply(train.variables(state), x, train=False)
    by_hand = jax.nn.softmax(logits)[0, :height, :width]
    np.testing.assert_allclose(want, by_hand, atol=1e-5)
    np.save(tmp_path / "a.npy", image)
    trust = ["--trust"] if which == "model_inputs" else []
    got = segjax("predict", run, tmp_path / "a.npy", "--out", tmp_path / "out", *trust)
    assert got.code == 0, got.err
    label = np.asarray(Image.open(tmp_path / "out/a.png"))
    np.testing.assert_array_equal(label, want.argmax(-1))
    assert segjax("evaluate", run).code == 0
    metrics = read(run / "evaluation-test-best.json")["metrics"]
    assert metrics == read(run / "result.json")["metrics"]


def test_custom_code_is_executed_only_with_trust(own_inputs, segjax, tmp_path):
    with pytest.raises(ValueError, match=r"execute .*experiment.py"):
        library.load(own_inputs)
    np.save(tmp_path / "a.npy", np.zeros((16, 16, 5), np.uint16))
    got = segjax("predict", own_inputs, tmp_path / "a.npy", "--out", tmp_path / "out")
    assert got.code == 2
    assert "--trust" in got.err


def test_init_from_starts_with_another_runs_model(trained, script, segjax, tmp_path):
    run = tmp_path / "run"
    flags = ("--steps", 1, "--init-from", trained["uint16"], "--run", run)
    assert segjax("train", script, *flags).code == 0
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    last = json.loads((trained["uint16"] / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] < 0.7 * last["loss"]
