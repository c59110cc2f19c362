"""Builds every experiment on tiny data, and traces its step and evaluation."""

import contextlib
import pathlib
import re

import jax
import numpy as np
import pytest

from segjax import train
from segjax.cli import scripts
from tests.data import sources

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
SIDE = 40


def nuclei(_):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:20, 4:16] = 255
    return {
        f"{part}/{i}/{kind}/{i}.png": sources.png(pixels)
        for part in ("stage1_train", "stage1_test")
        for i in range(10)
        for kind, pixels in (
            ("images", np.full((SIDE, SIDE, 3), i, np.uint8)),
            ("masks", mask),
        )
    }


def streets(rng):
    found = {}
    for split in ("train", "val", "test"):
        pixels = sources.image(rng, SIDE, SIDE)
        found[f"CamVid/{split}/0.jpg"] = sources.png(pixels, "JPEG")
        ids = rng.integers(0, 12, (SIDE, SIDE)).astype(np.uint8)
        found[f"CamVid/{split}annot/0.png"] = sources.png(ids)
    return found


def membranes(rng):
    return {
        f"isbi2012/train/{kind}/{n}.png": sources.png(
            rng.choice(np.array([0, 255], np.uint8), (SIDE, SIDE))
        )
        for kind in ("image", "label")
        for n in range(30)
    }


def retinas(rng):
    found = {}
    for part in ("training", "test"):
        for n in range(20):
            pixels = sources.image(rng, SIDE, SIDE)
            mask = (pixels[..., 0] > 99).astype(np.uint8) * 255
            found |= {
                f"DRIVE/{part}/images/{n}.png": sources.png(pixels),
                f"DRIVE/{part}/1st_manual/{n}.png": sources.png(mask),
                f"DRIVE/{part}/mask/{n}.png": sources.png(np.full_like(mask, 255)),
            }
    return found


def own(kind):
    def files(rng):
        ids = np.zeros((SIDE, SIDE), np.uint8)
        ids[:20, :20] = 1
        found = {}
        for i in range(10):
            found[f"images/{i}.png"] = sources.png(sources.image(rng, SIDE, SIDE))
            found[f"{kind}/{i}.png"] = sources.png(ids)
        return found

    return files


SMALL = {"batch_size": 2, "steps": 10}
OF_DIGITS = ["simple_cnn", "unet", "fcn", "mask_rcnn"]
CASES = [
    *[pytest.param(f"digits_{name}", None, {}) for name in OF_DIGITS],
    pytest.param("digits_mislabeled", None, {"scenes": 16}),
    pytest.param("dsb2018_unet", nuclei, {"size": 32}),
    pytest.param("dsb2018_mislabeled", nuclei, {"size": 32, "wrong": 0.2}),
    pytest.param("dsb2018_unet_instances", nuclei, {"size": 32}),
    pytest.param(
        "dsb2018_unet_instances",
        nuclei,
        {
            "size": 32,
            "encoder": "efficientnet-lite0",
            "pretrained": True,
            "modality": "all",
        },
    ),
    pytest.param("dsb2018_mean_teacher", nuclei, {"size": 32}),
    pytest.param("dsb2018_mean_teacher", nuclei, {"size": 32, "teacher": False}),
    pytest.param("dsb2018_mask_rcnn", nuclei, {"size": 32, "small": True}),
    pytest.param("dsb2018_mask_rcnn", nuclei, {"size": 64}),
    pytest.param("camvid_unet", streets, {"size": (32, 32)}),
    pytest.param("camvid_fcn", streets, {"size": (64, 64)}),
    pytest.param("camvid_unet_efficientnet", streets, {"size": (32, 32)}),
    pytest.param(
        "camvid_unet_efficientnet", streets, {"size": (64, 32), "pretrained": False}
    ),
    pytest.param("isbi2012_unet", membranes, {}),
    pytest.param(
        "isbi2012_unet",
        membranes,
        {"encoder": "efficientnet-lite0", "pretrained": True},
    ),
    pytest.param("drive_unet", retinas, {"size": 32}),
    pytest.param("drive_unet", retinas, {"size": 32, "loss": "boundary"}),
    pytest.param("folder_unet", own("masks"), {"size": 32}),
    pytest.param(
        "folder_unet", own("masks"), {"size": 32, "encoder": "efficientnet-lite0"}
    ),
    pytest.param("folder_mask_rcnn", own("instances"), {"size": 64, "small": True}),
    pytest.param("folder_mask_rcnn", own("instances"), {"size": 64, "upscale": 2}),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folder of prepared data, separate from the user's."""
    return tmp_path_factory.mktemp("prepared")


@pytest.mark.parametrize(("name", "files", "flags"), CASES)
def test_step_and_evaluation_trace(
    name, files, flags, rng, tmp_path, prepared, monkeypatch
):
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(prepared))
    if files is not None:
        flags = {**flags, "source": sources.write(tmp_path / "source", files(rng))}
    build = scripts.load(EXPERIMENTS / f"{name}.py")
    experiment = build(**SMALL, **flags)
    pipeline = experiment.data
    state = train.abstract_state_of(experiment, train.data_spec(pipeline))
    with contextlib.closing(pipeline.train_batches(batch_size=2, seed=0)) as batches:
        after, scalars = jax.eval_shape(
            train.build_step(experiment), state, next(batches)
        )
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(
        lambda x: x.shape, state
    )
    assert {"loss", "grad_norm"} <= scalars.keys()
    evaluation = train.make_eval_step(
        experiment.forward, experiment.objective, experiment.metric
    )
    split = train.evaluation_split(pipeline.splits)
    with contextlib.closing(pipeline.eval_batches(split, batch_size=2)) as batches:
        jax.eval_shape(evaluation, train.variables(state), next(batches))


def test_every_experiment_is_tested():
    written = {
        path.stem
        for path in EXPERIMENTS.glob("*.py")
        if re.search(r"\n(def|from \S+ import) experiment\b", path.read_text())
    }
    assert {case.values[0] for case in CASES} == written
