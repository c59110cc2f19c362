"""What an evaluation says on the terminal."""

import numpy as np
import pytest

from segjax import metrics
from segjax.train import metric_lines

CLASSES = ("soil", "weed", "crop")


def scores(matrix):
    return metrics.Confusion(np.array(matrix), CLASSES).compute()


def test_a_class_that_is_never_predicted():
    found = scores([[90, 2, 0], [1, 20, 0], [3, 1, 0]])
    assert metric_lines.lagging_class(found) == "crop 0.00: never predicted"
    line = metric_lines.metrics_line(found, monitor="mean_iou")
    assert line.endswith("  crop 0.00: never predicted")
    assert line.startswith("accuracy 94%  mean IoU 0.")


def test_a_class_that_is_predicted_elsewhere():
    found = scores([[90, 2, 1], [1, 20, 0], [3, 1, 0]])
    assert metric_lines.lagging_class(found) == "crop 0.00"


def test_rare_is_not_lagging():
    found = scores([[90, 2, 1], [1, 20, 0], [1, 1, 2]])
    assert metric_lines.lagging_class(found) is None


def test_a_class_in_neither_truth_nor_prediction():
    found = scores([[90, 2, 0], [1, 20, 0], [0, 0, 0]])
    assert np.isnan(found["iou/crop"])
    assert metric_lines.lagging_class(found) is None


@pytest.mark.parametrize("name", ["[/b]", "a/b", "$\\frac{$"])
def test_names_of_classes_stay_as_they_are(name):
    found = {"mean_iou": 0.5, "iou/x": 1.0, f"iou/{name}": 0.01}
    assert metric_lines.lagging_class(found) == f"{name} 0.01"


def test_average_precision_and_other_metrics():
    found = {"mask_ap": 0.4, "mask_ap/cell": 0.78, "mask_ap/dust": 0.02}
    assert metric_lines.lagging_class(found) == "dust 0.02"
    assert metric_lines.lagging_class({"loss": 1.0}) is None
    assert metric_lines.lagging_class({"iou/a": 0.0, "mean_iou": float("nan")}) is None


def test_images_of_training_are_no_test():
    assert "images of training" in metric_lines.split_title("train")
    assert metric_lines.split_title("test") == "test"
