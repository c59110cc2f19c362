"""Inference on few images at a time, whose maps stay in the caches of a CPU."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun, jaxprs_in_params

from segjax import onednn
from segjax.compiler import cores
from segjax.forward import Forward
from segjax.typing import PyTree

_PIXELS = 2**15
"""Pixels of a core's images: of two of 128x128."""
_WEIGHTS = 2**23
"""Parameters from which reading them once more for each part takes longer."""


def few_images_at_a_time(forward: Forward) -> Forward:
    """Makes inference compute parts of a batch one after another, where that is faster.

    It is on CPUs where oneDNN computes all convolutions (XLA's are slow in a loop), for
    models of fewer than 8 million parameters, whose logits are computed from images
    alone: a U-Net takes 0.8 times as long on one core, 0.9 to 1.0 times on two, and an
    eighth to a half of the memory (docs/speed.md). Elsewhere, and in training, nothing
    changes.

    Args:
        forward: The network, whose outputs for an image do not depend on the others
            in its batch when it does not train. Not for a program of several devices.

    Returns:
        The same function. A subclass of `Forward` is returned unchanged.
    """
    if type(forward) is not Forward:
        return forward
    return _InParts(**vars(forward))


class _InParts(Forward):
    """A `Forward` that computes `infer` in parts, if oneDNN convolves all of them."""

    def infer(self, variables: PyTree, inputs: dict[str, Any], rngs: Any = None) -> Any:
        def compute(inputs: dict[str, Any]) -> Any:
            return super(_InParts, self).infer(variables, inputs, rngs)

        rows = rows_of_a_part(variables, inputs)
        if rows is None:
            return compute(inputs)
        image = inputs["image"]
        parts = image.reshape(-1, rows, *image.shape[1:])
        part = jax.ShapeDtypeStruct(parts.shape[1:], parts.dtype)
        traced = jax.make_jaxpr(lambda part: compute({"image": part}))(part)
        is_logits = [aval.ndim for aval in traced.out_avals] == [4]
        if not is_logits or "conv_general_dilated" in _operations(traced.jaxpr):
            return compute(inputs)
        made = jax.lax.map(lambda part: jaxpr_as_fun(traced)(part)[0], parts)
        return made.reshape(-1, *made.shape[2:])


def _operations(jaxpr: Any) -> Iterator[str]:
    """Names of a program's operations, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from _operations(inner)


def rows_of_a_part(variables: PyTree, inputs: dict[str, Any]) -> int | None:
    """Number of images of a part, which divides that of the batch; None for all."""
    if onednn.version() is None or set(inputs) != {"image"}:
        return None
    if sum(x.size for x in jax.tree.leaves(variables)) > _WEIGHTS:
        return None
    rows, height, width = inputs["image"].shape[:3]
    least = cores() * max(1, _PIXELS // max(1, height * width))
    return next((n for n in range(least, rows) if rows % n == 0), None)
