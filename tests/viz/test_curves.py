import math
import xml.etree.ElementTree as ET

import pytest

from segjax import viz

RECORDS = [
    {"kind": "train", "step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 3.0},
    {"kind": "train", "step": 2, "loss": 1.25, "learning_rate": 0.1, "grad_norm": 2.0},
    {"kind": "eval", "step": 2, "split": "validation", "mean_iou": 0.625, "loss": 1.5,
     "iou/cat": 0.5, "surface_distance": 12.0},
]  # fmt: skip


def _texts(svg):
    return [
        node.text for node in ET.fromstring(svg).iter() if node.tag.endswith("text")
    ]


def test_shows_each_series_with_its_last_value():
    texts = _texts(viz.curves(RECORDS))
    for wanted in (
        "train loss 1.250",
        "validation loss 1.500",
        "mean IoU 0.625",
        "learning rate 0.100",
        "gradient norm 2.000",
    ):
        assert wanted in texts
    # Pixels do not share an axis with scores; per-class scores have a table.
    assert not any("surface" in text or "cat" in text for text in texts)


def test_terms_show_where_there_are_several():
    records = [{"kind": "train", "step": 1, "loss": 3.0, "loss/ce": 1.0}]
    assert "train loss/ce 1.000" not in _texts(viz.curves(records))
    records[0]["loss/dice"] = 2.0
    assert {"train loss/ce 1.000", "train loss/dice 2.000"} <= set(
        _texts(viz.curves(records))
    )


def test_long_losses_are_smoothed():
    values = [1.0, 3.0] * 60  # A running mean over 120 // 30 = 4 steps is 2.
    records = [{"kind": "train", "step": i, "loss": v} for i, v in enumerate(values)]
    assert "train loss 2.000" in _texts(viz.curves(records))


@pytest.mark.parametrize("hole", [math.nan, math.inf, None, "text"])
def test_what_is_no_number_leaves_a_hole(hole):
    records = [*RECORDS[:2], {"kind": "train", "step": 3, "loss": hole}]
    assert "train loss 1.250" in _texts(viz.curves(records))


def test_nothing_to_plot():
    assert viz.curves([]) is None
    assert viz.curves([{"kind": "train", "step": 1, "loss": math.nan}]) is None


def test_is_repeatable_and_takes_the_colours_of_its_page():
    svg = viz.curves(RECORDS)
    assert svg == viz.curves(RECORDS)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#010203" not in svg
