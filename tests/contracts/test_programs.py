"""Checks of arguments are no part of the programs that they guard."""

import jax
import jax.numpy as jnp
import pytest

from segjax import losses, ops
from segjax.ops import checks

LOGITS = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
LABELS = jax.ShapeDtypeStruct((2, 8, 8), jnp.int32)
VALID = jax.ShapeDtypeStruct((2, 8, 8), jnp.bool_)
BOXES = jax.ShapeDtypeStruct((5, 4), jnp.float32)
SEMANTIC = (
    *(losses.cross_entropy, losses.focal, losses.soft_dice, losses.lovasz_softmax),
    *(losses.poly_cross_entropy, losses.asymmetric_unified_focal, losses.boundary),
)
FUNCTIONS = {
    **{f.__name__: (f, (LOGITS, LABELS, VALID)) for f in SEMANTIC},
    "sigmoid_dice": (losses.sigmoid_dice, (LOGITS, LOGITS, VALID)),
    "soft_label_dice": (losses.soft_label_dice, (LOGITS, LOGITS, VALID)),
    "resize_bilinear": (lambda x: ops.resize_bilinear(x, (5, 6)), (LOGITS,)),
    "max_pool_3x3": (ops.max_pool_3x3, (LOGITS,)),
    "two_nearest": (ops.two_nearest, (LABELS,)),
    "box_iou": (ops.box_iou, (BOXES, BOXES)),
}


def program(name):
    function, arguments = FUNCTIONS[name]
    return str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_checks_add_no_equation(name, monkeypatch, untyped):
    checked = program(name)
    jax.clear_caches()
    for check in ("shapes", "number", "whole_number", "in_range", "size"):
        monkeypatch.setattr(checks, check, lambda *_, **__: None)
    for convert in ("as_mask", "as_class_ids", "as_floats", "floating"):
        monkeypatch.setattr(checks, convert, lambda _, x, **__: x)
    assert program(name) == checked
    assert "=" in checked
