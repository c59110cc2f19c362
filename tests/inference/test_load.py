"""Loading models from run folders, without executing their code."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import segjax
from segjax import inference, model_file, models, ops, viz
from segjax.forward import Forward
from segjax.run_folder import manifest
from tests.scenes import experiment

CLASSES = ["background", "square", "bar"]


def write_run(folder, forward, *, channels=3, dtype="uint8", task="semantic", **facts):
    image = np.zeros((1, 32, 32, channels), np.float32)
    variables = jax.jit(forward.model.init)(jax.random.key(0), image)
    facts = {
        "classes": CLASSES,
        "image": {"channels": channels, "dtype": dtype, "low": 0, "high": 1},
        "task": task,
        "multiple": 16,
        "max_shapes": 4,
        **facts,
    }
    model_file.write(folder, forward, variables, facts)
    return variables


def pixels_of(height, width, channels=3, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels))
    return values.astype(dtype)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cnn"
    write_run(folder, Forward(models.SimpleCNN(num_classes=3)))
    (folder / "experiment.py").write_text("raise SystemExit('executed')\n")
    return folder


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        blocked = "tensorflow_datasets grain optax orbax matplotlib".split()
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import numpy as np
import segjax

model = segjax.load(sys.argv[1])
prediction = model.predict(np.load(sys.argv[2]))
prediction.save(sys.argv[3] + "/out.png")
prediction.overlay()
np.save(sys.argv[3] + "/probabilities.npy", prediction.probabilities)
"""


def test_neither_data_nor_optimizer_nor_script_is_needed(cnn, tmp_path):
    """In a process that cannot import them, with a script that would raise."""
    image = pixels_of(20, 33)
    np.save(tmp_path / "image.npy", image)
    args = [cnn, tmp_path / "image.npy", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    want = segjax.load(cnn).predict(image)
    got = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(got, want.probabilities, atol=1e-6)
    stored = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(stored, np.argmax(got, -1))


def test_the_preprocessing_of_training_is_applied(tmp_path):
    module = models.SimpleCNN(num_classes=3)
    variables = write_run(
        tmp_path,
        Forward(module, ops.clip_window(0.0, 400.0)),
        channels=5,
        dtype="uint16",
    )
    image = pixels_of(16, 16, 5, np.uint16) * 2
    got = segjax.load(tmp_path).predict(image)
    logits = module.apply(variables, np.minimum(image[None], 400) / np.float32(400))
    np.testing.assert_allclose(got.probabilities, jax.nn.softmax(logits[0]), atol=1e-5)


def test_what_a_loaded_model_has(cnn):
    model = segjax.load(cnn)
    assert model.classes == tuple(CLASSES)
    assert model.module == models.SimpleCNN(num_classes=3)
    assert model.forward == Forward(model.module)
    assert model.variables["params"]["head"]["bias"].shape == (3,)
    assert model.description["task"] == "semantic"
    np.testing.assert_array_equal(model.palette, viz.palette(3))


def test_colors_of_the_data(tmp_path):
    colors = ["#000000", "#ff0080", "#010203"]
    write_run(tmp_path, Forward(models.SimpleCNN(num_classes=3)), colors=colors)
    want = [[0, 0, 0], [255, 0, 128], [1, 2, 3]]
    np.testing.assert_array_equal(segjax.load(tmp_path).palette, want)


def test_many_images_in_their_order(cnn, tmp_path):
    model = segjax.load(cnn)
    arrays = [pixels_of(10 + 7 * i, 40 - 3 * i) for i in range(6)]
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    alone = [model.predict(array) for array in arrays]
    for images in (arrays, paths, (x for x in arrays)):
        got = list(segjax.load(cnn).predict_all(images, batch_size=2))
        for mine, want, array in zip(got, alone, arrays, strict=True):
            np.testing.assert_array_equal(mine.image, array)
            np.testing.assert_allclose(
                mine.probabilities[:5, :5], want.probabilities[:5, :5], atol=1e-5
            )
    assert list(model.predict_all([])) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        list(model.predict_all(arrays, batch_size=0))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (pixels_of(9, 9, 5), r"\[H, W, 3\] of dtype uint8, .* \[9, 9, 5\] of .* uint8"),
        (
            pixels_of(9, 9, 3, np.float32) / 300,
            "of dtype uint8, .* of dtype float32 from the",
        ),
        (pixels_of(9, 9)[:0], r"got \[0, 9, 3\]"),
        (pixels_of(9, 9)[None], r"got \[1, 9, 9, 3\]"),
    ],
    ids=str,
)
def test_an_image_of_another_kind(cnn, image, words):
    with pytest.raises(ValueError, match=words) as error:
        segjax.load(cnn).predict(image)
    assert str(cnn) in str(error.value)


def test_one_channel_may_be_left_out(tmp_path):
    write_run(tmp_path, Forward(models.SimpleCNN(num_classes=3)), channels=1)
    model, image = segjax.load(tmp_path), pixels_of(12, 9, 1)
    a, b = model.predict(image), model.predict(image[..., 0])
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert a.overlay().shape == (12, 9, 3)


def test_multilabel(tmp_path):
    module = models.SimpleCNN(num_classes=3)
    write_run(tmp_path, Forward(module), task="multilabel")
    description, variables = model_file.read(tmp_path)
    head = variables["params"]["head"]
    image = pixels_of(16, 16)
    logits = module.apply(variables, image[None] / np.float32(255))
    # Half of the pixels have no class.
    head["bias"] = head["bias"] - np.median(logits.max(-1))
    facts = {k: description[k] for k in ("classes", "image", "task", "multiple")}
    facts |= {"max_shapes": 4}
    model_file.write(tmp_path, Forward(module), variables, facts)
    got = segjax.load(tmp_path).predict(image)
    logits = module.apply(variables, image[None] / np.float32(255))[0]
    probs = np.asarray(jax.nn.sigmoid(logits))
    np.testing.assert_allclose(got.probabilities, probs, atol=1e-6)
    none = probs.max(-1) < 0.5
    assert 0 < none.sum() < none.size
    np.testing.assert_array_equal(got.labels, np.where(none, 255, probs.argmax(-1)))
    untouched = (got.overlay() == image).all(-1)
    np.testing.assert_array_equal(untouched, none)


def test_objects(tmp_path):
    module = models.MaskRCNN(
        body=models.resnet18(width=8, norm=models.layers.group_norm),
        fpn=models.FPN(features=8),
        rpn=models.RPN(
            anchor_sizes=((8,), (14,), (20,), (28,), (40,)),
            pre_nms_top_n_test=16,
            post_nms_top_n_test=8,
        ),
        roi_heads=models.RoIHeads(
            3, box_width=8, mask_convs=1, mask_width=8, detections_per_img=5,
            score_threshold=0.0, aligned=True,
        ),
    )  # fmt: skip
    forward = Forward(module, model_inputs=models.mask_rcnn_inputs)
    variables = write_run(tmp_path / "run", forward, task="instance", multiple=32)
    image = pixels_of(40, 50)
    got = segjax.load(tmp_path / "run").predict(image)
    size = np.array([[40, 50]], np.int32)
    outputs = module.apply(variables, image[None] / np.float32(255), size=size)
    (want,) = models.instances(outputs)
    assert len(want["scores"]) == 5
    assert got.probabilities is None
    for name, value in want.items():
        np.testing.assert_allclose(got.objects[name], value, atol=1e-3, err_msg=name)
    got.save(tmp_path / "one.png")
    rows = json.loads((tmp_path / "one.json").read_text())["objects"]
    assert [row["class"] for row in rows] == [CLASSES[k] for k in want["classes"]]
    with Image.open(tmp_path / "one.png") as numbers:
        assert numbers.size == (50, 40)
    assert got.overlay().shape[2] == 3


def test_objects_are_numbered_the_first_on_top(tmp_path):
    masks = np.zeros((3, 2, 3), np.float32)
    masks[0, 0, :2], masks[1, :, 1:], masks[2] = 0.9, 0.5, 1.0
    objects = {"masks": masks, "scores": np.array([0.9, 0.6, 0.4], np.float32)}
    objects |= {"boxes": np.zeros((3, 4), np.float32), "classes": np.array([1, 2, 1])}
    sure = inference.confident_objects(objects)
    np.testing.assert_array_equal(
        inference.prediction.instance_map(sure), [[1, 1, 2], [0, 2, 2]]
    )


SCRIPT = """
import pathlib

import flax.linen as nn

from tests import scenes

class Mine(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Conv(3, (1, 1))(image)

def experiment(*, width: int = 3):
    (pathlib.Path(__file__).parent / "executed").write_text(str(width))
    return scenes.experiment(model=Mine())
"""


class Mine(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Conv(3, (1, 1))(image)


@pytest.fixture
def foreign(tmp_path):
    """A run with a custom module."""
    write_run(tmp_path, Forward(Mine()))
    (tmp_path / "experiment.py").write_text(SCRIPT)
    found = manifest.describe(experiment(), flags={"width": 5}, script=None)
    (tmp_path / "run.json").write_text(json.dumps(found))
    return tmp_path


def test_custom_code_is_executed_only_if_trusted(foreign):
    with pytest.raises(inference.NeedsCodeError, match="trust=True") as error:
        segjax.load(foreign)
    assert f"would execute {foreign / 'experiment.py'}" in str(error.value)
    assert "Mine" in str(error.value)
    assert not (foreign / "executed").exists()
    model = segjax.load(foreign, trust=True)
    assert (foreign / "executed").read_text() == "5"  # The run's flags.
    kernel = model.variables["params"]["Conv_0"]["kernel"][0, 0]
    image = pixels_of(16, 16)
    want = jax.nn.softmax(image / np.float32(255) @ kernel)
    np.testing.assert_allclose(model.predict(image).probabilities, want, atol=1e-5)


def test_the_experiment_on_demand(foreign, tmp_path_factory):
    model = segjax.load(foreign, trust=True)
    (foreign / "executed").unlink()
    assert model.experiment().forward.model.__class__.__name__ == "Mine"
    assert (foreign / "executed").exists()
    bare = tmp_path_factory.mktemp("bare")
    write_run(bare, Forward(models.SimpleCNN(num_classes=3)))
    with pytest.raises(ValueError, match="no run"):
        segjax.load(bare).experiment()


def test_saved_as_png_only(cnn, tmp_path):
    prediction = segjax.load(cnn).predict(pixels_of(4, 5))
    with pytest.raises(ValueError, match="as a"):
        prediction.save(tmp_path / "labels.jpg")
    prediction.save(tmp_path / "labels.png")
    stored = Image.open(tmp_path / "labels.png")
    assert stored.mode == "L"
    np.testing.assert_array_equal(np.asarray(stored), prediction.labels)
