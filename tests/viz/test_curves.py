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
    # Pixel distances are not on the axis of scores; per-class scores have a table.
    assert not any("surface" in text or "cat" in text for text in texts)


def test_the_monitored_score_and_the_most_quoted_come_first():
    names = ["box_ap", "box_ap50", "box_ap75", "box_ar1", "mask_ap", "f1@0.50"]
    records = [
        {
            "kind": "eval",
            "split": "validation",
            "step": step,
            **dict.fromkeys(names, 0.5),
        }
        for step in (1, 2)
    ]
    shown = [t for t in _texts(viz.curves(records, monitor="f1@0.50")) if "0.500" in t]
    assert shown == ["f1@0.50 0.500", "mask AP 0.500", "box AP 0.500", "box AP50 0.500"]


def test_a_long_legend_is_beside_the_lines():
    def right_of_axes(terms):
        record = {"kind": "train", "step": 1, "loss": 3.0}
        record |= {f"loss/{i}": 1.0 for i in range(terms)}
        nodes = ET.fromstring(viz.curves([record, record | {"step": 2}])).iter()
        (label,) = [x for x in nodes if x.text == "train loss 3.000"]
        return float(label.get("x")) > 200

    assert not right_of_axes(2)
    assert right_of_axes(5)


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


@pytest.mark.parametrize(
    "hole", [math.nan, math.inf, None, "text", True, 1e300, 10**400]
)
def test_values_that_are_not_finite_are_skipped(hole):
    records = [*RECORDS[:2], {"kind": "train", "step": 3, "loss": hole}]
    assert "train loss 1.250" in _texts(viz.curves(records))


@pytest.mark.parametrize("end", [0, 1])
def test_whole_numbers_are_drawn(end):
    """As damage of a log may make them, and steps of a metric that counts."""
    records = [*RECORDS[:2], {"kind": "train", "step": 3, "loss": end}]
    shown = {0: "train loss 0", 1: "train loss 1.000"}[end]
    assert shown in _texts(viz.curves(records))


@pytest.mark.parametrize("name", ["a $\\frac{1$ b", "\x1b[2J"])
def test_names_are_text(name):
    records = [{"kind": "eval", "step": i, "split": name, "loss": 0.5} for i in (1, 2)]
    shown = name.replace("\x1b", "?")
    assert f"{shown} loss 0.500" in _texts(viz.curves(records))


def test_nothing_to_plot():
    assert viz.curves([]) is None
    assert viz.curves([{"kind": "train", "step": 1, "loss": math.nan}]) is None


def test_is_repeatable_and_takes_the_colors_of_its_page():
    svg = viz.curves(RECORDS)
    assert svg == viz.curves(RECORDS)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#010203" not in svg
