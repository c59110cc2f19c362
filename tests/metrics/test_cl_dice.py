import numpy as np
import pytest
import skimage.morphology

from segjax import metrics
from tests.metrics import scenes


def test_by_hand():
    # A line of nine pixels; the prediction has its first six, and one pixel off it.
    truth, predicted = np.zeros((2, 5, 11), bool)
    truth[2, 1:10] = True
    predicted[2, 1:7] = True
    predicted[0, 10] = True
    assert metrics.cl_dice(truth, truth) == 1
    precision, recall = 6 / 7, 6 / 9
    want = 2 * precision * recall / (precision + recall)
    assert metrics.cl_dice(predicted, truth) == pytest.approx(want)


def test_depends_on_breaks_but_not_on_thickness():
    truth = np.zeros((9, 40), bool)
    truth[4, 2:38] = True
    thick = skimage.morphology.dilation(truth, np.ones((3, 3)))
    assert metrics.cl_dice(thick, truth) > 0.95
    broken = truth.copy()
    broken[:, 10:20] = False
    assert metrics.cl_dice(broken, truth) < 0.9


def test_metric_over_images_and_classes(rng):
    logits, batch = scenes.batch(rng, examples=4, size=(24, 21))
    batch["label"][1] = 0
    batch["valid"][3] = False
    metric = scenes.compiled(metrics.centerline_dice(scenes.NAMES))
    got = metric(logits, batch).made
    predicted = logits.argmax(-1)
    want = np.array(
        [
            [
                metrics.cl_dice(
                    (predicted[i] == c) & batch["valid"][i],
                    (batch["label"][i] == c) & batch["valid"][i],
                )
                for c in (1, 2)
            ]
            for i in range(4)
        ]
    )
    per_image = got.per_image()
    np.testing.assert_array_equal(per_image["cl_dice_per_image/dog"], want[:, 1])
    assert (want[1] == 0).all()  # Only predicted.
    assert np.isnan(want[3]).all()  # Neither.
    mean = got.compute()["mean_cl_dice_per_image"]
    assert mean == pytest.approx(np.mean(want[:3].mean(1)))
