"""The gallery: complete, drawn from its own lines, with values that can be checked."""

import inspect
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, metrics

pytest.importorskip("matplotlib")

from docs.tools import gallery
from docs.tools.pages import sections

TEXT = (pathlib.Path(__file__).parents[2] / "docs/gallery.md").read_text()
SECTIONS = sections(TEXT)


def test_every_loss_has_a_section():
    of_pixels = {
        name
        for name in losses.__all__
        if list(inspect.signature(getattr(losses, name)).parameters)[:1] == ["logits"]
    }
    of_boxes = {"giou_sum", "diou_sum", "ciou_sum"}
    of_detectors = {name for name in losses.__all__ if name.endswith("_sum")} - of_boxes
    assert len(of_pixels) > 25
    assert (of_pixels - of_detectors) | of_boxes | {"instance"} <= SECTIONS.keys()
    assert all(f"`{name}`" in SECTIONS["instance"] for name in of_detectors)


def test_every_metric_has_a_section():
    functions = filter(inspect.isfunction, vars(metrics).values())
    metric_functions = {
        function.__name__
        for function in functions
        if list(inspect.signature(function).parameters)[:1] == ["classes"]
    }
    assert len(metric_functions) > 6
    assert metric_functions <= SECTIONS.keys()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_a_formula_and_a_line(name):
    body = SECTIONS[name]
    assert "```math\n" in body
    names = gallery.defined(body)
    assert name.removesuffix("_sum") in body
    made = names.keys() & {
        *("objective", "metric", "box_loss", "detector_objective", "detector_metric"),
        *("interval", "comparison", "adjusted"),
    }
    assert len(made) == 1


def test_values_of_jaccard_by_hand():
    objective = gallery.defined(SECTIONS["jaccard"])["objective"]
    values, gradient = gallery.values_and_gradient(objective)
    logits = gallery.moved()[4].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    t = np.stack([~gallery.truth(), gallery.truth()], -1)
    both, either = (p * t).sum((0, 1)), (p + t - p * t).sum((0, 1))
    np.testing.assert_allclose(
        values[4], np.mean(1 - (both + 1) / (either + 1)), rtol=1e-4
    )
    # Missed pixels are pulled towards the object, false ones away from it.
    missed = gallery.truth() & ~gallery.prediction()
    false = gallery.prediction() & ~gallery.truth()
    assert gradient[missed].max() < 0 < gradient[false].min()


def test_scores_of_moved_predictions_by_hand():
    metric = gallery.defined(SECTIONS["semantic"])["metric"]
    scores = gallery.scores_of(metric, ["iou/object"])["iou/object"]
    for shift in (0, 5):
        moved = np.zeros_like(gallery.truth())
        moved[:, shift:] = gallery.truth()[:, : gallery.SIZE - shift]
        both, either = moved & gallery.truth(), moved | gallery.truth()
        np.testing.assert_allclose(scores[shift], both.sum() / either.sum())


def test_box_losses_by_hand():
    shifts, values, slopes = gallery.box_losses(losses.giou_sum)
    # A box 12 wide, moved by 16: no intersection, and a hull of 28 with 4 empty.
    assert shifts[16] == 16
    np.testing.assert_allclose(values[16], 1 + 4 / 28, rtol=1e-5)
    np.testing.assert_allclose(slopes[16], (24 / 28) / 28, rtol=1e-4)
    assert jnp.all(slopes[1:] > 0)


def test_pictures_are_linked_from_the_page(tmp_path):
    text = "<!-- picture: example -->\n\n### focal\n" + SECTIONS["focal"]
    made = gallery.add_pictures(text, tmp_path)
    assert "![focal: gradient and value](gallery/focal.svg)\n\n```python" in made
    assert "<svg" in (tmp_path / "gallery/focal.svg").read_text()
    assert "(gallery/example.svg)" in made
