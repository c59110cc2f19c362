"""Inference on CPUs by oneDNN: fused convolutions, and few images at a time."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from segjax import onednn
from segjax.compiler import cores
from segjax.forward import Forward
from segjax.typing import PyTree

_PIXELS = 2**15
"""Pixels of a core's images: of two of 128x128."""
_WEIGHTS = 2**23
"""Parameters from which reading them once more for each part takes longer."""


def faster_on_cpu(forward: Forward) -> Forward:
    """Makes inference faster where oneDNN computes the convolutions.

    Convolutions compute the batch norm or bias and the ReLU that follow them. Models of
    fewer than 8 million parameters, all of whose convolutions oneDNN computes (XLA's
    are slow in a loop) and whose logits are computed from images alone, compute parts
    of a batch one after another, whose maps stay in the caches, in less memory. A U-Net
    takes 0.8 times as long on one core, 0.85 times on two (docs/speed.md). Elsewhere,
    and in training, nothing changes.

    Args:
        forward: The network, whose outputs for an image do not depend on the others
            in its batch when it does not train. Not for a program of several devices.

    Returns:
        The same function, but for rounding. A subclass of `Forward` is returned
        unchanged.
    """
    if type(forward) is not Forward:
        return forward
    return _OnCpu(**vars(forward))


class _OnCpu(Forward):
    """A `Forward` that computes `infer` by fused convolutions, and in parts."""

    def infer(self, variables: PyTree, inputs: dict[str, Any], rngs: Any = None) -> Any:
        def compute(inputs: dict[str, Any]) -> Any:
            return super(_OnCpu, self).infer(variables, inputs, rngs)

        if onednn.version() is None:
            return compute(inputs)
        trace = jax.make_jaxpr(compute, return_shape=True)
        rows = rows_of_a_part(variables, inputs)
        if rows is not None:
            image = inputs["image"]
            parts = image.reshape(-1, rows, *image.shape[1:])
            one = jax.ShapeDtypeStruct(parts.shape[1:], parts.dtype)
            program, shape = trace({"image": one})
            is_logits = getattr(shape, "ndim", None) == 4
            if is_logits and "conv_general_dilated" not in _operations(program.jaxpr):
                part = onednn.fused(program, shape, looped=True)
                made = jax.lax.map(part, {"image": parts})
                return made.reshape(-1, *made.shape[2:])
        return onednn.fused(*trace(inputs))(inputs)


def _operations(jaxpr: Any) -> Iterator[str]:
    """Names of a program's operations, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from _operations(inner)


def rows_of_a_part(variables: PyTree, inputs: dict[str, Any]) -> int | None:
    """Number of images of a part, which divides that of the batch; None for all."""
    if set(inputs) != {"image"}:
        return None
    if sum(x.size for x in jax.tree.leaves(variables)) > _WEIGHTS:
        return None
    rows, height, width = inputs["image"].shape[:3]
    least = cores() * max(1, _PIXELS // max(1, height * width))
    return next((n for n in range(least, rows) if rows % n == 0), None)
