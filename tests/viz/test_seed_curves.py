import io
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from segjax import viz


def lines(losses, scores):
    records = [
        {"kind": "train", "step": i, "loss": x} for i, x in enumerate(losses, start=1)
    ]
    records += [
        {"kind": "eval", "step": i, "split": "validation", "mean_iou": x}
        for i, x in enumerate(scores, start=1)
    ]
    final = {"kind": "eval", "step": 2, "split": "test", "mean_iou": 9, "final": True}
    return [*records, final]


RUNS = {
    3: lines([2.0, 1.0, 0.5], [0.1, 0.5]),
    5: lines([4.0, 2.0, math.nan], [0.3, 0.6]),
    6: lines([6.0, 6.0], [0.2, 0.7]),
}


@pytest.fixture
def drawn(monkeypatch):
    """Calls of `plot` and `fill_between`: label, steps and values."""
    calls = []
    plot, fill = Axes.plot, Axes.fill_between

    def plotted(axes, x, y, **options):
        calls.append((options["label"], np.asarray(x), np.asarray(y)))
        return plot(axes, x, y, **options)

    def filled(axes, x, low, high, **options):
        calls.append((options["label"], np.asarray(x), np.stack([low, high])))
        return fill(axes, x, low, high, **options)

    monkeypatch.setattr(Axes, "plot", plotted)
    monkeypatch.setattr(Axes, "fill_between", filled)
    return calls


def test_mean_each_seed_and_range(drawn):
    picture = viz.seed_curves(RUNS, monitor="mean_iou")
    # By hand: step 3 is left out, which one seed lacks and one has as NaN.
    mean, each, band = drawn[:3]
    assert mean[0] == "mean, 3.000 at the end"
    np.testing.assert_array_equal(mean[1], [1, 2])
    np.testing.assert_array_equal(mean[2], [4, 3])
    np.testing.assert_array_equal(each[2].T, [[2, 1], [4, 2], [6, 6]])
    assert band[0] == "lowest to highest"
    np.testing.assert_array_equal(band[2], [[2, 1], [6, 6]])
    # The final evaluation, of the test split, is on no curve.
    np.testing.assert_allclose(drawn[3][2], [0.2, 0.6])
    assert Image.open(io.BytesIO(picture)).size[0] > 1000


def test_one_seed_and_no_evaluation_yet(drawn):
    assert viz.seed_curves({0: RUNS[3][:2]}, monitor="mean_iou")
    assert [label for label, *_ in drawn if label == "lowest to highest"] != []
    assert len(drawn) == 3


def test_no_common_step():
    assert viz.seed_curves({0: RUNS[3], 1: []}, monitor="mean_iou") is None


def test_is_repeatable():
    one = viz.seed_curves(RUNS, monitor="mean_iou")
    assert one == viz.seed_curves(RUNS, monitor="mean_iou")
