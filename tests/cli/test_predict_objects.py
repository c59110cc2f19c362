"""A detector's files: every mask and score, and the AP that `evaluate` computes."""

import json

import jax
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
import pytest
from PIL import Image

import segjax as package
from segjax import metrics, model_file, models
from segjax.forward import Forward

CLASSES = ["background", "one", "two"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    module = models.MaskRCNN(
        body=models.resnet18(width=8, norm=models.layers.group_norm),
        fpn=models.FPN(features=8),
        rpn=models.RPN(
            anchor_sizes=((8,), (14,), (20,), (28,), (40,)),
            pre_nms_top_n_test=16,
            post_nms_top_n_test=8,
        ),
        roi_heads=models.RoIHeads(
            3, box_width=8, mask_convs=1, mask_width=8, detections_per_img=6,
            score_threshold=0.0, aligned=True,
        ),
    )  # fmt: skip
    forward = Forward(module, model_inputs=models.mask_rcnn_inputs)
    image = np.zeros((1, 64, 64, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(1), image)
    facts = {
        "classes": CLASSES,
        "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
        "task": "instance",
        "multiple": 32,
        "max_shapes": 2,
    }
    folder = tmp_path_factory.mktemp("runs") / "detector"
    model_file.write(folder, forward, variables, facts)
    return folder


def test_the_json_gives_the_average_precision_of_the_outputs(
    segjax, detector, tmp_path
):
    """Truth is made of some of the model's own masks, so that the AP is not trivial."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"in/{i}.png")
    out = tmp_path / "out"
    got = segjax("predict", detector, tmp_path / "in", "--out", out)
    assert got.code == 0, got.err
    model = package.load(detector)
    outputs, _ = model.forward(
        model.variables, {"image": images, "size": np.full((3, 2), 64, np.int32)}
    )
    found = models.instances(outputs)
    merged = json.loads((out / "objects.json").read_text())
    assert len(merged["annotations"]) == sum(len(x["scores"]) for x in found) > 6
    truth = [
        (i, int(k), mask >= 0.5)
        for i, x in enumerate(found)
        for k, mask in list(zip(x["classes"], x["masks"], strict=True))[::2]
        if (mask >= 0.5).sum() > 4
    ]
    # One is shifted, and one is missed.
    truth[0] = (*truth[0][:2], np.roll(truth[0][2], 2, axis=0))
    truth.append((2, 1, np.eye(64, dtype=bool)))
    want = evaluated(outputs, truth)
    dataset = reference(truth)
    for kind, name in (("segm", "mask_ap"), ("bbox", "box_ap")):
        results = dataset.loadRes(merged["annotations"])
        evaluation = pycocotools.cocoeval.COCOeval(dataset, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(want[name], abs=1e-9)
        assert 0.05 < want[name] < 0.99


def reference(truth):
    """The truth as pycocotools' data set; images are numbered from 1."""
    rows = []
    for number, (image, class_id, mask) in enumerate(truth, start=1):
        rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        rows.append(
            {
                "id": number,
                "image_id": image + 1,
                "category_id": class_id,
                "segmentation": rle,
                "area": int(mask.sum()),
                "bbox": pycocotools.mask.toBbox(rle).tolist(),
                "iscrowd": 0,
            }
        )
    dataset = pycocotools.coco.COCO()
    dataset.dataset = {
        "images": [{"id": i, "height": 64, "width": 64} for i in (1, 2, 3)],
        "annotations": rows,
        "categories": [{"id": i, "name": CLASSES[i]} for i in (1, 2)],
    }
    dataset.createIndex()
    return dataset


def evaluated(outputs, truth):
    """The metric of `segjax evaluate` on the outputs."""
    slots = 16
    batch = {
        "boxes": np.zeros((3, slots, 4), np.float32),
        "classes": np.zeros((3, slots), np.int32),
        "masks": np.zeros((3, slots, 64, 64), bool),
        "object_mask": np.zeros((3, slots), bool),
        "valid": np.ones((3, 64, 64), bool),
        "index": np.arange(3, dtype=np.int32),
        "weight": np.ones(3, np.float32),
    }
    for image, class_id, mask in truth:
        slot = int(batch["object_mask"][image].sum())
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        batch["boxes"][image, slot] = box
        batch["classes"][image, slot] = class_id
        batch["masks"][image, slot] = mask
        batch["object_mask"][image, slot] = True
    return metrics.detections(CLASSES)(outputs, batch).compute()


def test_tiles_turns_and_flags(segjax, detector, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 70, 3)).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    args = ("predict", detector, tmp_path / "a.png", "--out", tmp_path / "out")
    got = segjax(*args, "--tile", 64, "--tta", "--min-area", 10, "--classes", "two")
    assert got.code == 0, got.err
    rows = json.loads((tmp_path / "out/a.json").read_text())["annotations"]
    assert rows
    assert {row["category_id"] for row in rows} == {2}
    assert min(row["area"] for row in rows) >= 10
    with Image.open(tmp_path / "out/a.png") as ids:
        assert ids.mode == "I;16"
        assert ids.size == (70, 90)
    got = segjax(*args, "--uncertainty")
    assert got.code == 2
    assert "detects objects" in got.err
