import functools

import numpy as np
import pytest
import scipy.ndimage
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjax import metrics

NAMES = ("cat", "dog", "tree")
SUMMARY = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


def scene(rng, images=7, slots=12, size=(120, 140)):
    """Boxes and elliptic masks; detections are shifted copies and false positives."""
    height, width = size
    truth = _random_boxes(rng, (images, slots), size)
    detected = truth + rng.normal(size=truth.shape) * 1.5
    invented = rng.random((images, slots)) < 0.3
    detected[invented] = _random_boxes(rng, (images, slots), size)[invented]
    detected = np.clip(detected, 0, [width, height, width, height])
    classes = rng.integers(1, 3, (images, slots))  # No trees in truth.
    wrong = rng.random((images, slots)) < 0.1
    object_mask = rng.random((2, images, slots)) < 0.8
    object_mask[0, 1:2], object_mask[1, 2:3], object_mask[:, 3:4] = False, False, False
    sides = [
        {
            "boxes": detected.astype(np.float32),
            "scores": rng.permutation(images * slots).reshape(images, slots) / 100,
            "classes": np.where(wrong, 3, classes),
            "object_mask": object_mask[0],
        },
        {
            "boxes": truth.astype(np.float32),
            "classes": classes,
            "object_mask": object_mask[1],
            "crowd": rng.random((images, slots)) < 0.15,
        },
    ]
    for side in sides:
        side["masks"] = _ellipses(side["boxes"], size)
    batch = {"index": np.arange(images), "weight": np.ones(images)}
    return (*sides, batch)


def _random_boxes(rng, shape, size):
    center = rng.random((*shape, 2)) * [size[1], size[0]]
    half = rng.choice([6, 20, 60], (*shape, 1)) * (0.5 + rng.random((*shape, 2)))
    boxes = np.concatenate([center - half, center + half], axis=-1)
    return np.clip(boxes, 0, [size[1], size[0]] * 2)


def _ellipses(boxes, size):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    x0, y0, x1, y1 = (boxes[..., i, None, None] for i in range(4))
    half = np.maximum(x1 - x0, 1e-3) / 2, np.maximum(y1 - y0, 1e-3) / 2
    return (
        ((x - (x0 + x1) / 2) / half[0]) ** 2 + ((y - (y0 + y1) / 2) / half[1]) ** 2
    ) <= 1


def oracle(detections, truth, kind, ids, max_detections=(1, 10, 100)):
    """pycocotools as in its documentation: a data set, then `loadRes`."""

    def one(side, i, n):
        x0, y0, x1, y1 = (float(v) for v in side["boxes"][i, n])
        rle = coco_mask.encode(np.asfortranarray(side["masks"][i, n].astype(np.uint8)))
        return [x0, y0, x1 - x0, y1 - y0], rle

    annotations, results = [], []
    for i, image_id in enumerate(ids):
        for n in np.flatnonzero(truth["object_mask"][i]):
            box, rle = one(truth, i, n)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 10 * int(truth["classes"][i, n]),
                    "bbox": box,
                    "segmentation": rle,
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": int(truth["crowd"][i, n]),
                }
            )
        for n in np.flatnonzero(detections["object_mask"][i]):
            box, rle = one(detections, i, n)
            shape = {"bbox": box} if kind == "bbox" else {"segmentation": rle}
            results.append(
                {
                    "image_id": image_id,
                    "category_id": 10 * int(detections["classes"][i, n]),
                    "score": float(detections["scores"][i, n]),
                    **shape,
                }
            )
    data = COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": i, "height": 120, "width": 140} for i in ids],
        "categories": [{"id": 10 * k} for k in (1, 2, 3)],
        "annotations": annotations,
    }
    data.createIndex()
    evaluation = COCOeval(data, data.loadRes(results), kind)
    evaluation.params.maxDets = list(max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed, capsys):
    detections, truth, batch = scene(np.random.default_rng(seed))
    got = metrics.AveragePrecision.from_batch(detections, truth, batch, classes=NAMES)
    scores = got.compute()
    assert capsys.readouterr().out == ""
    assert 0.05 < scores["box_ap"] < 0.95
    assert 0.05 < scores["mask_ap"] < 0.95
    assert np.isnan(scores["box_ap/tree"])
    mean = (scores["box_ap/cat"] + scores["box_ap/dog"]) / 2
    assert scores["box_ap"] == pytest.approx(mean, abs=1e-12)
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        want = oracle(detections, truth, kind, [3, 11, 12, 20, 31, 40, 55])
        want.summarize()
        capsys.readouterr()
        for key, value in zip(SUMMARY, want.stats, strict=True):
            value = np.nan if value == -1 else value
            assert scores[f"{name}_{key}"] == pytest.approx(
                value, abs=1e-12, nan_ok=True
            ), key


def test_by_hand():
    # Two cats; one detected, one missed, and a false positive with a higher score.
    # Precision is 1/2 up to recall 1/2 and 0 beyond: 51 of the 101 recalls are at most
    # 1/2.
    boxes = np.array([[[0, 0, 10, 10], [20, 0, 30, 10]]], np.float32)
    side = {"boxes": boxes, "classes": np.ones((1, 2), int)}
    truth = side | {"object_mask": np.ones((1, 2), bool)}
    far = boxes + np.array([[0, 50, 0, 50], [0, 0, 0, 0]])[None]
    detections = truth | {"boxes": far, "scores": np.array([[0.9, 0.8]])}
    batch = {"index": np.zeros(1), "weight": np.ones(1)}
    make = functools.partial(metrics.AveragePrecision.from_batch, classes=("cat",))
    scores = make(detections, truth, batch).compute()
    assert scores["box_ap50"] == pytest.approx(51 / 101 / 2)
    assert scores["box_ap/cat"] == scores["box_ap"]
    assert scores["box_ar100"] == 0.5
    assert not any(key.startswith("mask") for key in scores)
    crowd = dict(truth, boxes=far, crowd=np.array([[True, False]]))
    # The false positive now lies in a crowd and is ignored.
    assert make(detections, crowd, batch).compute()["box_ap"] == pytest.approx(1)


def test_any_order_and_any_batching_is_the_same(rng):
    detections, truth, batch = scene(rng)
    make = functools.partial(metrics.AveragePrecision.from_batch, classes=NAMES)
    want = make(detections, truth, batch).compute()
    for cuts in ([2, 5], [1, 2, 3]):
        order = rng.permutation(7)
        parts = [
            make(*({k: v[i] for k, v in x.items()} for x in (detections, truth, batch)))
            for i in np.split(order, cuts)
        ]
        merged = functools.reduce(lambda a, b: a.merge(b), parts)
        assert merged.compute() == pytest.approx(want, abs=0, nan_ok=True)
    batch["weight"][4:] = 0
    some = [{k: v[:4] for k, v in x.items()} for x in (detections, truth, batch)]
    padded = make(detections, truth, batch).compute()
    assert padded == pytest.approx(make(*some).compute(), abs=0, nan_ok=True)


def test_empty_sides(rng):
    detections, truth, batch = scene(rng, images=3)
    none = np.zeros_like(truth["object_mask"])
    make = functools.partial(metrics.AveragePrecision.from_batch, classes=NAMES)
    scores = make(detections | {"object_mask": none}, truth, batch).compute()
    assert scores["box_ap"] == scores["mask_ap"] == scores["box_ar100"] == 0
    scores = make(detections, truth | {"object_mask": none}, batch).compute()
    assert np.isnan(list(scores.values())).all()
    both = make(
        detections | {"object_mask": none}, truth | {"object_mask": none}, batch
    )
    assert np.isnan(list(both.compute().values())).all()


def test_area_sets_small_and_large(rng):
    detections, truth, batch = scene(rng)
    make = functools.partial(metrics.AveragePrecision.from_batch, classes=NAMES)
    small = np.full(truth["object_mask"].shape, 5.0)
    scores = make(detections, truth | {"area": small}, batch).compute()
    assert np.isnan(scores["box_ap_large"])
    assert scores["box_ap_small"] > 0


def test_message(rng):
    detections, truth, batch = scene(rng, images=1)
    del truth["masks"]
    with pytest.raises(ValueError, match="got them in detections only"):
        metrics.AveragePrecision.from_batch(detections, truth, batch, classes=NAMES)


def test_numbers_of_detections_and_scores_of_classes(rng):
    detections, truth, batch = scene(rng)
    scores = metrics.AveragePrecision.from_batch(
        detections, truth, batch, classes=NAMES, max_detections=(2, 5)
    ).compute()
    ids = [3, 11, 12, 20, 31, 40, 55]
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        want = oracle(detections, truth, kind, ids, max_detections=[2, 5]).eval
        recall, precision = want["recall"], want["precision"]
        known = {
            "ar2": recall[:, :2, 0, 0],
            "ar5": recall[:, :2, 0, 1],
            "ap": precision[:, :, :2, 0, 1],
            "ap50/cat": precision[0, :, 0, 0, 1],
            "ap75/dog": precision[5, :, 1, 0, 1],
            "ar5/dog": recall[:, 1, 0, 1],
        }
        for key, values in known.items():
            assert scores[f"{name}_{key}"] == pytest.approx(values.mean()), key
        assert np.isnan(scores[f"{name}_ar5/tree"])
        assert scores[f"{name}_ar2"] < scores[f"{name}_ar5"]


@pytest.mark.parametrize("wrong", [(), (10, 1), (1, 1), (0,), (1.5,)])
def test_numbers_of_detections_ascend(wrong, rng, untyped):
    with pytest.raises(ValueError, match="max_detections"):
        metrics.AveragePrecision.from_batch(
            *scene(rng, images=1), classes=NAMES, max_detections=wrong
        )
    with pytest.raises(ValueError, match="max_detections"):
        metrics.detections(("ground", *NAMES), max_detections=wrong)


def test_boundaries_of_single_objects(rng):
    # One object of each class, so that its AP is the share of thresholds below its IoU.
    size, count = (60, 70), 12
    boxes = _random_boxes(rng, (1, count), size)
    moved = np.clip(boxes + rng.normal(size=boxes.shape), 0, [70, 60, 70, 60])
    sides = []
    for place in (moved, boxes):
        masks = _ellipses(place, size)
        masks[..., 25:30, 30:36] ^= True
        sides.append(
            {
                "boxes": place.astype(np.float32),
                "classes": np.arange(1, count + 1)[None],
                "object_mask": np.ones((1, count), bool),
                "masks": masks,
            }
        )
    sides[0]["scores"] = np.ones((1, count))
    names = tuple(f"c{i}" for i in range(count))
    batch = {"index": np.zeros(1, int), "weight": np.ones(1)}
    options = {"classes": names, "boundary_width": 2}
    got = metrics.AveragePrecision.from_batch(*sides, batch, **options).compute()
    square = np.ones((3, 3), bool)
    differ = 0
    for i, name in enumerate(names):
        a, b = (side["masks"][0, i] for side in sides)
        bands = [m & ~scipy.ndimage.binary_erosion(m, square, 2) for m in (a, b)]
        iou = (a & b).sum() / (a | b).sum()
        band = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        levels = np.linspace(0.5, 0.95, 10)
        want = np.mean(levels <= min(iou, band) + 1e-12)
        assert got[f"boundary_ap/{name}"] == pytest.approx(want), name
        assert got[f"mask_ap/{name}"] == pytest.approx(np.mean(levels <= iou + 1e-12))
        differ += want != np.mean(levels <= iou + 1e-12)
    assert differ > 3


def test_boundaries_need_masks(rng):
    found, true, batch = scene(rng, images=2)
    sides = [{k: v for k, v in x.items() if k != "masks"} for x in (found, true)]
    with pytest.raises(ValueError, match="needs masks, got boxes only"):
        metrics.AveragePrecision.from_batch(
            *sides, batch, classes=NAMES, boundary_width=1
        )
