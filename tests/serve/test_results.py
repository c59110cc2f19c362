import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from segjax import serve, viz
from segjax.inference import Prediction
from segjax.serve import results


def semantic(probs, *, classes=("background", "<b>x</b>"), multilabel=False):
    probs = np.asarray(probs, np.float32)
    labels = probs.argmax(-1).astype(np.uint8)
    if multilabel:
        labels[probs.max(-1) < 0.5] = 255
    return Prediction(
        image=np.full((*labels.shape, 3), 100, np.uint8),
        classes=classes,
        palette=viz.palette(len(classes)),
        labels=labels,
        probabilities=probs,
        multilabel=multilabel,
    )


def detected(scores):
    masks = np.zeros((len(scores), 4, 6), np.float32)
    for i in range(len(scores)):
        masks[i, :, i] = 0.75
    labels = np.zeros((4, 6), np.uint16)
    labels[:, 0] = bool(scores)
    objects = {
        "boxes": np.array([[i, 0, i + 1, 4] for i in range(len(scores))], np.float32),
        "scores": np.array(scores, np.float32),
        "classes": np.ones(len(scores), np.int32),
        "masks": masks,
    }
    return Prediction(
        image=np.zeros((4, 6, 1), np.uint16),
        classes=("background", "cell"),
        palette=viz.palette(2),
        labels=labels,
        objects=objects,
    )


def picture(html, name):
    data = re.search(rf'segjax-{name}".*?base64,([^"]+)"', html)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_uncertainty_by_hand():
    exclusive = semantic([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]])
    np.testing.assert_allclose(
        results.uncertainty(exclusive), [[1, 0, 0.811278]], atol=1e-6
    )
    several = semantic([[[0.5, 1.0], [0.0, 1.0]]], multilabel=True)
    np.testing.assert_allclose(results.uncertainty(several), [[0.5, 0]], atol=1e-6)
    objects = results.uncertainty(detected([2 / 3]))
    np.testing.assert_allclose(objects[0], [1, 0, 0, 0, 0, 0], atol=1e-6)
    assert not results.uncertainty(detected([])).any()


def test_semantic_result():
    found = serve.describe(semantic([[[0.1, 0.9], [0.8, 0.2]]]), opacity=0.25)
    mask, color = picture(found.overlay, "mask"), viz.palette(2)[1]
    np.testing.assert_array_equal(mask[..., 3], [[255, 0]])
    np.testing.assert_array_equal(mask[0, 0], [*color, 255])
    assert "opacity:0.25" in found.overlay
    assert (picture(found.overlay, "image") == 100).all()
    np.testing.assert_array_equal(picture(found.mask, "labels")[0, 0], color)
    assert picture(found.uncertainty, "uncertainty").shape == (1, 2)
    assert "<b>" not in found.table
    assert "&lt;b&gt;x" in found.table
    assert found.table.count("50.0%") == 2


def test_multilabel_tints_class_zero_and_nothing_else():
    found = serve.describe(
        semantic([[[0.9, 0.1], [0.2, 0.2]]], multilabel=True), opacity=1
    )
    np.testing.assert_array_equal(picture(found.overlay, "mask")[..., 3], [[255, 0]])
    assert "background" in found.table


def test_objects_are_listed_with_scores():
    table = serve.describe(detected([0.9, 0.3]), opacity=1).table
    assert "1: cell" in table
    assert "0.90" in table
    assert "0.30" not in table
    assert "1 more have a score below 0.5" in table
    assert "Nothing was found" in serve.describe(detected([]), opacity=1).table


@pytest.mark.parametrize("side", [20, 2_000])
def test_pictures_are_bounded(side):
    probs = np.zeros((2, side, 2), np.float32)
    probs[..., 1] = 1
    found = serve.describe(semantic(probs), opacity=1)
    assert picture(found.overlay, "image").shape[1] == min(side, results.MAX_SIDE)
