"""Exported files give the results of the run, in a process that has no segjax."""

import dataclasses
import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import segjax
from segjax import export, model_file, models
from segjax.cli import scripts
from segjax.forward import Forward
from tests.docs.blocks import blocks
from tests.experiments.test_scripts import EXPERIMENTS
from tests.inference.test_load import pixels_of, write_run

ALONE = """
import importlib.metadata
import sys

ALLOWED = {"jax", "jaxlib", "numpy", "flatbuffers", "ml_dtypes", "opt_einsum", "scipy"}
BLOCKED = set(importlib.metadata.packages_distributions()) | {"segjax"}
BLOCKED -= ALLOWED | set(sys.stdlib_module_names)

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
for name in ("segjax", "flax"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was imported")
"""
CASES = """
inputs = np.load("inputs.npz")
for case in ("one", "three"):
    images = [inputs[name] for name in inputs.files if name.startswith(case)]
    np.savez(f"{case}.npz", **predict(images))
"""
SIZES = {"one": [(50, 70)], "three": [(64, 64), (64, 64), (40, 33)]}
"""Batches of one and of three images; in the second, one is smaller than its array."""


def run_alone(folder, images):
    """Runs the example of docs/model.md in a fresh process, as printed."""
    np.savez(folder / "inputs.npz", **images)
    source = blocks("model.md")["A file that runs without segjax"]
    assert len([x for x in source.splitlines() if x.strip()]) <= 20
    code = ALONE + source + CASES
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return {case: np.load(folder / f"{case}.npz") for case in SIZES}


def images_of(rng):
    """Noise in which a detector finds something."""
    return {
        f"{case}{i}": rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        for case, sizes in SIZES.items()
        for i, size in enumerate(sizes)
    }


def write_experiment(folder, name, change=lambda variables: None):
    """A run's model with the network of an experiment, and random variables."""
    experiment = scripts.load(EXPERIMENTS / f"{name}.py")()
    forward = experiment.forward
    variables = jax.jit(forward.model.init, static_argnames="train")(
        {"params": jax.random.key(0)}, np.zeros((1, 64, 64, 3), np.float32), train=False
    )
    variables = jax.tree.map(np.array, variables)
    change(variables)
    facts = {
        "classes": list(experiment.data.classes),
        "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
        "task": getattr(forward.model, "task", "semantic"),
        "multiple": 32,
        "max_shapes": 8,
    }
    model_file.write(folder, forward, variables, facts)
    return segjax.load(folder)


def as_trained(variables):
    """Statistics that are not those of the start, and logits that are not all equal."""
    rng = np.random.default_rng(0)
    for path, x in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]):
        low, high = (0.5, 2.0) if path[-1].key == "var" else (-0.5, 0.5)
        x[...] = rng.uniform(low, high, x.shape)


def test_digits_unet_without_segjax(tmp_path, rng):
    model = write_experiment(tmp_path / "run", "digits_unet", as_trained)
    export.save(model, tmp_path / "mine.segjax")
    images = images_of(rng)
    results = run_alone(tmp_path, images)
    for case, sizes in SIZES.items():
        for i, (height, width) in enumerate(sizes):
            want = model.predict(images[f"{case}{i}"])
            probs = results[case]["probabilities"][i]
            if (height, width) != (40, 33):  # Padded more than `predict` pads it.
                found = probs[:height, :width]
                np.testing.assert_allclose(found, want.probabilities, atol=1e-5)
                best = np.sort(want.probabilities, axis=-1)
                sure = best[..., -1] - best[..., -2] > 2e-5
                labels = results[case]["labels"][i, :height, :width]
                np.testing.assert_array_equal(labels[sure], want.labels[sure])
                assert len(np.unique(want.labels[sure])) > 1
            assert not probs[height:].any()
            assert not probs[:, width:].any()
            assert (results[case]["labels"][i, height:] == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("found", ["some", "none"])
def test_digits_mask_rcnn_without_segjax(tmp_path, rng, found):
    def favor(variables):
        bias = variables["params"]["roi_heads"]["box"]["score"]["bias"]
        bias[0] = {"some": 0, "none": 20}[found]  # Class 0 is the background.

    model = write_experiment(tmp_path / "run", "digits_mask_rcnn", favor)
    export.save(model, tmp_path / "mine.segjax")
    images = images_of(rng)
    results = run_alone(tmp_path, images)
    for case, sizes in SIZES.items():
        for i, (height, width) in enumerate(sizes):
            want, got = model.predict(images[f"{case}{i}"]), results[case]
            kept = got["object_mask"][i]
            assert kept.sum() == len(want.objects["scores"])
            assert (kept.sum() > 0) == (found == "some")
            for name in ("boxes", "scores", "classes"):
                np.testing.assert_allclose(
                    got[name][i][kept], want.objects[name], rtol=1e-5, atol=1e-5
                )
                assert not got[name][i][~kept].any()
            masks = got["masks"][i]
            # Boxes of 1e-5 pixels more or less move them: 1.04e-5 on one machine.
            np.testing.assert_allclose(
                masks[kept, :height, :width], want.objects["masks"], atol=3e-5
            )
            assert not masks[:, height:].any()
            labels = got["labels"][i, :height, :width]
            np.testing.assert_array_equal(labels, want.labels)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """A small model and its exported file."""
    folder = tmp_path_factory.mktemp("cnn")
    write_run(folder / "run", Forward(models.SimpleCNN(num_classes=3, width=4)))
    export.save(segjax.load(folder / "run"), folder / "cnn.segjax")
    return folder


def test_an_artifact_predicts_as_the_model_does(cnn):
    model, artifact = segjax.load(cnn / "run"), export.load(cnn / "cnn.segjax")
    for size in ((1, 1), (20, 33)):
        image = pixels_of(*size)
        want, got = model.predict(image), artifact.predict(image)
        assert got.classes == want.classes
        np.testing.assert_array_equal(got.palette, want.palette)
        np.testing.assert_allclose(got.probabilities, want.probabilities, atol=1e-5)
        np.testing.assert_array_equal(got.labels, want.labels)


@pytest.mark.parametrize(
    "model",
    [
        models.UNet(num_classes=3, widths=(4, 4), padding="valid"),
        models.FCN(3, widths=(4, 6), convs=(1, 1), head_width=8, stride=2),
    ],
    ids=["margin", "fcn"],
)
def test_margins_and_multilabel(tmp_path, model):
    forward = Forward(model)
    write_run(tmp_path / "run", forward, channels=1, dtype="uint16", task="multilabel")
    loaded = segjax.load(tmp_path / "run")
    export.save(loaded, tmp_path / "x.segjax")
    image = pixels_of(21, 19, channels=1, dtype=np.uint16) * 200
    want, got = loaded.predict(image), export.load(tmp_path / "x.segjax").predict(image)
    np.testing.assert_allclose(got.probabilities, want.probabilities, atol=1e-5)
    assert got.multilabel
    assert 0 < (want.labels == 255).mean() < 1
    unsure = np.abs(want.probabilities - 0.5).min(-1) < 1e-4
    np.testing.assert_array_equal(got.labels[~unsure], want.labels[~unsure])


def test_fixed_sizes(cnn, tmp_path):
    model, path = segjax.load(cnn / "run"), tmp_path / "fixed.segjax"
    export.save(model, path, size=(20, 40), batch_size=2)
    artifact = export.load(path)
    inputs = artifact.description["inputs"]
    assert inputs["image"]["shape"] == [2, 20, 40, 3]
    image = pixels_of(20, 33)
    np.testing.assert_allclose(
        artifact.predict(image).probabilities,
        model.predict(image).probabilities,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="at most 40x20 pixels, got 33x21"):
        artifact.predict(pixels_of(21, 33))


def test_equal_models_are_equal_files_without_paths(cnn, tmp_path):
    export.save(segjax.load(cnn / "run"), tmp_path / "again.segjax")
    content = (tmp_path / "again.segjax").read_bytes()
    assert content == (cnn / "cnn.segjax").read_bytes()
    assert b".py" not in content
    assert [p.name for p in tmp_path.iterdir()] == ["again.segjax"]


def change(path, target, name, content):
    """A copy of a file in which an entry is replaced."""
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(target, "w") as copy:
        for entry in file.namelist():
            copy.writestr(entry, content if entry == name else file.read(entry))
    return target


def test_damaged_files_are_one_line(cnn, tmp_path):
    path = cnn / "cnn.segjax"
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("metadata.json"))
    texts = [b"{", b"[]", b"{}"]
    for wrong in (
        {"classes": 3},
        {"palette": [[0, 0, 0]]},
        {"image": {"channels": 4, "dtype": "uint8"}},
        {"multiple": 0},
    ):
        texts.append(json.dumps(about | wrong).encode())
    files = [
        change(path, tmp_path / f"{i}", "metadata.json", text)
        for i, text in enumerate(texts)
    ]
    files.append(change(path, tmp_path / "x", "program.stablehlo", b"not a program"))
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-100])
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    (tmp_path / "text").write_text("hello")
    files += [tmp_path / name for name in ("cut", "flipped", "text")]
    for file in files:
        with pytest.raises(ValueError, match="is not an exported model, or") as caught:
            export.load(file)
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)
    newer = json.dumps(about | {"format": 2, "segjax": "9.9"}).encode()
    file = change(path, tmp_path / "newer", "metadata.json", newer)
    with pytest.raises(ValueError, match=r"has format 2.*Update segjax to 9\.9"):
        export.load(file)


def test_wrong_images_are_one_line(cnn):
    artifact = export.load(cnn / "cnn.segjax")
    with pytest.raises(ValueError, match=r"\[H, W, 3\] of dtype uint8.*float32"):
        artifact.predict(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"got \[4, 4, 2\]"):
        artifact.predict(np.zeros((4, 4, 2), np.uint8))


def test_a_model_that_needs_sizes_is_told_the_flags(cnn, tmp_path):
    class Picky:
        margin = 0

        def apply(self, variables, image, **_):
            return image[..., :3] * int(image.shape[1])

    model = dataclasses.replace(segjax.load(cnn / "run"), forward=Forward(Picky()))
    with pytest.raises(ValueError, match=r"Picky cannot be exported.*--size HEIGHT"):
        export.save(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())
    export.save(model, tmp_path / "x", size=(16, 16))
    with pytest.raises(ValueError, match="at least 1"):
        export.save(model, tmp_path / "x", size=(16, 0))


def test_without_flatbuffers(cnn, tmp_path, without):
    without("flatbuffers")
    with pytest.raises(ValueError, match=r'pip install "segjax\[export\]"'):
        export.save(segjax.load(cnn / "run"), tmp_path / "x")
    with pytest.raises(ValueError, match=r'pip install "segjax\[export\]"'):
        export.load(cnn / "cnn.segjax")
