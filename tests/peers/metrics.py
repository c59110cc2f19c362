"""Metrics that a peer has too."""

import functools

import numpy as np

from segjax import metrics
from tests.peers.scenes import C
from tests.peers.table import Pair
from tests.peers.theirs import first, ids, monai, numbers, torchmetrics

NAMES = ("background", "cat", "dog")
ABSENT_IS_1 = "a class absent from both scores 1, not NaN, with ignore_empty=False"
ONE_CLASS = "0 for 0 / 0, not NaN"
NOWHERE = dict.fromkeys(("class nowhere", "class masked by -inf"), ABSENT_IS_1)


@functools.cache
def _metric(name):
    return getattr(metrics, name)(NAMES)


def _batch(scene):
    count = len(scene.labels)
    return {
        "label": np.where(scene.valid, scene.labels, 0),
        "valid": scene.valid,
        "weight": np.ones(count, np.float32),
        "index": np.arange(count),
    }


def _ours(name, key):
    def value(scene):
        return _metric(name)(scene.logits, _batch(scene)).compute()[key]

    return value


def _classification(name, **options):
    def value(scene):
        function = getattr(torchmetrics().classification, f"multiclass_{name}")
        logits = first(scene.logits) if "calibration" in name else ids(scene.predicted)
        return numbers(
            function(logits, ids(scene.labels), C, ignore_index=255, **options)
        )

    return value


def _monai_per_image(function, **options):
    """[B, C] of the classes; NaN where a class is absent, as in ours."""

    def value(scene):
        compute = getattr(monai("metrics"), function)
        predicted = (
            np.eye(C, dtype=np.float32)[scene.predicted] * scene.valid[..., None]
        )
        return np.nanmean(
            numbers(compute(first(predicted), first(scene.hot), **options))
        )

    return value


def _mean_of_classes(score):
    """Mean of the images and classes that have the score, as MONAI reduces."""

    def value(scene):
        made = _metric("semantic_per_image")(scene.logits, _batch(scene)).per_image()
        return np.nanmean([made[f"{score}_per_image/{name}"] for name in NAMES])

    return value


def _surface(score, function=metrics.surface_scores, **options):
    """Mean over images and foreground classes that have a finite score."""

    def value(scene):
        found = []
        for c in range(1, C):
            sides = (x == c for x in (scene.predicted, scene.labels))
            made = function(*(x & scene.valid for x in sides), **options)
            found.append(np.asarray(made[score]))
        return _finite(found)

    return value


_by_length = functools.partial(_surface, function=metrics.surface_scores_by_length)


def _finite(values):
    values = numbers(values)
    return np.mean(values[np.isfinite(values)])


def _monai_surface(function, **options):
    def value(scene):
        compute = getattr(monai("metrics"), function)
        predicted = (
            np.eye(C, dtype=np.float32)[scene.predicted] * scene.valid[..., None]
        )
        return _finite(
            compute(
                first(predicted), first(scene.hot), include_background=False, **options
            )
        )

    return value


def _segments(classes):
    """Ids of segments: components of things, 0 for stuff."""
    ids = np.stack([metrics.connected_components(classes == c) for c in (1, 2)])
    return ids.sum(0) * (classes > 0)


def _panoptic(scene):
    sides = [(x, _segments(x)) for x in (scene.predicted, _batch(scene)["label"])]
    return metrics.Panoptic.from_batch(
        *sides, scene.valid, _batch(scene), classes=NAMES
    ).compute()["pq"]


def _torchmetrics_panoptic(scene):
    sides = [
        ids(np.stack([x, _segments(x)], -1))
        for x in (scene.predicted, _batch(scene)["label"])
    ]
    function = torchmetrics().detection.panoptic_quality
    return function(*sides, things={1, 2}, stuffs={0})


ONE_EMPTY = dict.fromkeys(
    ("class only predicted", "one class"),
    "an empty mask beside one that is not: inf or NaN, not the worst value",
)
PAIRS = [
    Pair(
        "metrics.semantic pixel_accuracy",
        _ours("semantic", "pixel_accuracy"),
        "torchmetrics accuracy(micro)",
        _classification("accuracy", average="micro"),
    ),
    Pair(
        "metrics.semantic mean_iou",
        _ours("semantic", "mean_iou"),
        "torchmetrics jaccard_index(macro)",
        _classification("jaccard_index"),
    ),
    Pair(
        "metrics.semantic mean_dice",
        _ours("semantic", "mean_dice"),
        "torchmetrics f1_score(macro)",
        _classification("f1_score"),
    ),
    Pair(
        "metrics.semantic kappa",
        _ours("semantic", "kappa"),
        "torchmetrics cohen_kappa",
        _classification("cohen_kappa"),
    ),
    Pair(
        "metrics.semantic matthews",
        _ours("semantic", "matthews"),
        "torchmetrics matthews_corrcoef",
        _classification("matthews_corrcoef"),
        {"one class": ONE_CLASS},
    ),
    Pair(
        "metrics.semantic_per_image iou",
        _mean_of_classes("iou"),
        "MONAI compute_iou",
        _monai_per_image("compute_iou", ignore_empty=False),
        NOWHERE,
    ),
    Pair(
        "metrics.semantic_per_image dice",
        _mean_of_classes("dice"),
        "MONAI compute_dice",
        _monai_per_image("compute_dice", ignore_empty=False),
        NOWHERE,
    ),
    Pair(
        "metrics.calibration ece",
        _ours("calibration", "ece"),
        "torchmetrics calibration_error(l1)",
        _classification("calibration_error", n_bins=15, norm="l1"),
    ),
    Pair(
        "metrics.calibration mce",
        _ours("calibration", "mce"),
        "torchmetrics calibration_error(max)",
        _classification("calibration_error", n_bins=15, norm="max"),
    ),
    Pair(
        "metrics.surface_scores hd",
        _surface("hd"),
        "MONAI compute_hausdorff_distance",
        _monai_surface("compute_hausdorff_distance"),
        ONE_EMPTY,
    ),
    Pair(
        "metrics.surface_scores hd95",
        _surface("hd95"),
        "MONAI compute_hausdorff_distance(95)",
        _monai_surface("compute_hausdorff_distance", percentile=95),
        ONE_EMPTY,
    ),
    Pair(
        "metrics.surface_scores assd",
        _surface("assd"),
        "MONAI compute_average_surface_distance",
        _monai_surface("compute_average_surface_distance", symmetric=True),
        ONE_EMPTY,
    ),
    Pair(
        "metrics.surface_scores nsd",
        _surface("nsd", tolerance=1.0),
        "MONAI compute_surface_dice",
        _monai_surface("compute_surface_dice", class_thresholds=[1.0, 1.0]),
    ),
]
PAIRS.append(
    Pair(
        "metrics.surface_scores_by_length nsd",
        _by_length("nsd", tolerance=1.0),
        "MONAI compute_surface_dice(use_subvoxels)",
        _monai_surface(
            "compute_surface_dice", class_thresholds=[1.0, 1.0], use_subvoxels=True
        ),
    )
)
PAIRS.append(
    Pair(
        "metrics.Panoptic pq",
        _panoptic,
        "torchmetrics panoptic_quality",
        _torchmetrics_panoptic,
        {"void": "has no mask"},
    )
)

TABLE = {}
for pair in PAIRS:
    TABLE.setdefault(pair.name, []).append(pair)
