import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tyro
from rich.console import Console

BENCHMARKS = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def mask_rcnn(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import mask_rcnn

    return mask_rcnn


@pytest.fixture
def work(mask_rcnn):
    import mask_rcnn_work

    return mask_rcnn_work


def test_options(mask_rcnn, capsys):
    with pytest.raises(SystemExit) as ended:
        tyro.cli(mask_rcnn.main, args=["--help"])
    assert ended.value.code == 0
    assert "--preset" in capsys.readouterr().out


def test_ratio_by_hand(mask_rcnn):
    found = mask_rcnn.compare(
        {"segjax": [1.0, 2.0, 4.0], "torchvision": [3.0, 8.0, 2.0]}
    )
    assert found == {"ratio": 1.5, "ratios": [3.0, 4.0, 0.5]}


def test_presets_are_what_the_header_says(mask_rcnn):
    for tasks in (mask_rcnn.cpu_tasks(2), mask_rcnn.gpu_tasks(8)):
        assert {task.mode for task in tasks} == {"train", "infer", "operations"}
        for task in tasks:  # Tasks go to the contestants as JSON.
            again = json.loads(json.dumps(dataclasses.asdict(task)))
            assert type(task)(**again) == task
    training, detecting, _ = mask_rcnn.gpu_tasks(8)
    assert (training.height, training.width, training.dtype) == (800, 1344, "bfloat16")
    assert (training.proposals, detecting.proposals) == (2000, 1000)  # torchvision's.


def test_objects_fill_their_boxes(work):
    task = work.Task(batch=2, height=64, width=96, objects=3)
    batch = work.scene(task)
    assert batch["object_mask"].sum() == 6
    assert not batch["masks"][~batch["object_mask"]].any()
    assert not batch["boxes"][~batch["object_mask"]].any()
    assert (batch["classes"] > 0).tolist() == batch["object_mask"].tolist()
    for box, mask in zip(
        batch["boxes"][batch["object_mask"]],
        batch["masks"][batch["object_mask"]],
        strict=True,
    ):
        y, x = np.nonzero(mask)
        assert (box[:2] >= 0).all()
        assert (box[2:] <= [96, 64]).all()
        np.testing.assert_allclose(
            box, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.5
        )


def test_boxes_of_the_operations(work):
    boxes, scores = work.crowd(1000)
    assert boxes.shape == (1000, 4)
    assert len(np.unique(scores)) == 1000  # No ties, which systems may break.
    boxes = work.regions(50, work.Task(height=64, width=96))
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= [96, 64, 96, 64]).all()


def test_table_names_what_was_compared(mask_rcnn):
    seconds = {"segjax": [0.5, 0.5], "torchvision": [1.0, 2.0]}
    system = {"measured": {"loss": 1.25}, "peak_bytes": 2e9, "compile_seconds": 3.0}
    result = {
        "task": dataclasses.asdict(mask_rcnn.Task(batch=2)),
        "systems": {"segjax": system, "torchvision": system},
        "runs": {"train": {**mask_rcnn.compare(seconds), "seconds": seconds}},
    }
    console = Console(record=True, width=80)
    mask_rcnn.show(result, console)
    text = console.export_text()
    assert "resnet50-FPN, train: batch 2, 128x128, 64 proposals, float32" in text
    assert "3x" in text  # Medians 0.5 and 1.5.
    assert "2 to 4" in text
    assert "torchvision: loss 1.25, memory 2.00 GB" in text
