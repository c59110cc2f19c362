"""`segjax inspect`: the table, the pictures, the page, the messages."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import SCRIPT, expect_one_error_line, write_scenes


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def mislabeled(tmp_path_factory):
    """The scenes of the run with one mask upside down."""
    folder = write_scenes(tmp_path_factory.mktemp("mislabeled") / "scenes")
    path = folder / "masks/07.png"
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    return folder


def test_a_wrong_mask_is_ranked_first(segjax, run, mislabeled):
    splits = ("train", "validation", "test")
    for by in ("loss", "gradient"):
        first = {}
        for split in splits:
            got = segjax(
                "inspect", run, "--source", mislabeled, "--split", split, "--by", by
            )
            assert got.code == 0, got.err
            rows = rows_of(run / f"inspection-{split}-best.csv")
            first[split] = max(rows, key=lambda row: float(row["loss"]))
            column = {"loss": "loss", "gradient": "gradient_norm"}[by]
            values = [float(row[column]) for row in rows]
            assert values == sorted(values, reverse=True)
            assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
            if any(row["name"] == "07" for row in rows):
                assert rows[0]["name"] == "07", rows[:3]
                assert "07" in got.out
                break
        else:
            pytest.fail("no split has the image")


def test_files_of_an_inspection(segjax, run):
    got = segjax("inspect", run, "--checkpoint", "last", "--top", "5")
    assert got.code == 0, got.err
    stem = run / "inspection-train-last"
    rows = rows_of(stem.with_suffix(".csv"))
    assert list(rows[0]) == [
        "rank",
        "index",
        "name",
        "loss",
        "loss/ce",
        "gradient_norm",
    ]
    assert sorted(int(row["index"]) for row in rows) == list(range(len(rows)))
    page = stem.with_suffix(".html").read_text()
    assert page.count("<figure>") == 5
    assert f"5 of {len(rows)}" in page
    for row in rows[:5]:
        assert f"index {row['index']}," in page
    assert np.asarray(Image.open(stem.with_suffix(".png"))).shape[1] > 3 * 128
    assert str(stem.with_suffix(".csv")) in got.out

    got = segjax("evaluate", run, "--checkpoint", "last", "--split", "train")
    assert got.code == 0, got.err
    metrics = json.loads((run / "evaluation-train-last.json").read_text())["metrics"]
    mean = np.mean([float(row["loss"]) for row in rows])
    assert mean == pytest.approx(metrics["loss"], rel=1e-5)


def test_batch_norm_is_ranked_by_loss_alone(segjax, source, tmp_path):
    script = tmp_path / "batch_norm_scenes.py"
    model = "models.SimpleCNN(num_classes=len(scenes.classes), width=width)"
    assert model in SCRIPT
    script.write_text(
        SCRIPT.replace(
            model,
            "models.UNet(num_classes=len(scenes.classes), widths=(4, 8), "
            "norm=models.layers.batch_norm)",
        )
    )
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run, "--steps", "2"]
    assert segjax("train", script, *flags).code == 0
    got = segjax("inspect", run)
    assert got.code == 0, got.err
    assert "not defined by the example alone" in " ".join(got.out.split())
    assert "gradient_norm" not in rows_of(run / "inspection-train-best.csv")[0]
    got = segjax("inspect", run, "--by", "gradient")
    expect_one_error_line(got, "batch norm", "not defined by the example alone")


DETECTOR = '''"""Squares, each an object."""

import pathlib

import optax

from segjax import data, losses, metrics, models, train


def experiment(*, source: pathlib.Path, steps: int = 1) -> train.Experiment:
    """Builds the run."""
    squares = data.instance_folder(source)
    norm = models.layers.group_norm
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=4, monitor="mask_ap", samples=1
        ),
        data=data.Pipeline(dataset=squares, max_objects=2),
        model=models.MaskRCNN(
            body=models.resnet18(width=8, norm=norm),
            fpn=models.FPN(features=8),
            rpn=models.RPN(
                anchor_sizes=((8,), (14,), (20,), (28,), (40,)),
                pre_nms_top_n_train=16,
                pre_nms_top_n_test=16,
                post_nms_top_n_train=8,
                post_nms_top_n_test=8,
                batch_size_per_image=8,
            ),
            roi_heads=models.RoIHeads(
                len(squares.classes),
                box_width=8,
                mask_convs=1,
                mask_width=8,
                batch_size_per_image=4,
                detections_per_img=2,
            ),
        ),
        objective=losses.instance(),
        optimizer=optax.sgd(1e-3),
        metric=metrics.detections(squares.classes),
        model_inputs=models.mask_rcnn_inputs,
    )
'''


@pytest.mark.slow
def test_detectors_are_ranked_by_their_losses_in_training(segjax, tmp_path):
    rng, source = np.random.default_rng(0), tmp_path / "squares"
    for folder in ("images", "instances"):
        (source / folder).mkdir(parents=True)
    for i in range(6):
        image = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        ids = np.zeros((32, 32), np.uint8)
        ids[4:14, 4 + i : 14 + i], ids[18:28, 6:16] = 1, 2
        image[ids > 0, 0] += 150
        Image.fromarray(image).save(source / f"images/{i}.png")
        Image.fromarray(ids).save(source / f"instances/{i}.png")
    script, run = tmp_path / "squares_mask_rcnn.py", tmp_path / "run"
    script.write_text(DETECTOR)
    got = segjax("train", script, "--source", source, "--run", run)
    assert got.code == 0, got.err
    assert (run / "samples/00.png").exists()
    rows = []
    for by in ("loss", "gradient"):
        got = segjax("inspect", run, "--by", by)
        assert got.code == 0, got.err
        assert "Traceback" not in got.err
        rows.append(rows_of(run / "inspection-train-best.csv"))
    terms = ["objectness", "rpn_box", "classifier", "box", "mask"]
    columns = {f"loss/{name}" for name in terms} | {"loss", "gradient_norm"}
    assert columns <= rows[0][0].keys()
    # Random keys come from the example's index, so losses repeat.
    losses = [sorted((row["index"], row["loss"]) for row in ranked) for ranked in rows]
    assert losses[0] == losses[1]
    for row in rows[0]:
        total = sum(float(row[f"loss/{name}"]) for name in terms)
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
        assert float(row["gradient_norm"]) > 0
    page = (run / "inspection-train-best.html").read_text()
    assert page.count("<figure>") == len(rows[0])


def test_messages(segjax, run, tmp_path):
    expect_one_error_line(segjax("inspect"), "run folder")
    expect_one_error_line(segjax("inspect", tmp_path / "none"), "run.json")
    expect_one_error_line(segjax("inspect", run, "--split", "tran"), "tran", "train")
    expect_one_error_line(segjax("inspect", run, "--top", "0"), "--top", "0")
    got = segjax("inspect", run, "--by", "size")
    assert got.code == 2
    assert "Traceback" not in got.err
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "run.json").write_text((run / "run.json").read_text())
    expect_one_error_line(segjax("inspect", bare), bare, "script")
