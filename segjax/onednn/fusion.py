"""Convolution, norm or bias, and ReLU of a traced program, in one call of oneDNN."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from segjax.onednn import primitives
from segjax.typing import Array, PyTree

_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Operations that call a function, and the parameter that is it: `relu` has both."""


def fused(
    program: ClosedJaxpr, shapes: PyTree, *, looped: bool = False
) -> Callable[..., PyTree]:
    """Makes convolutions of a program compute what follows them too.

    For inference: where ReLU follows a convolution, after batch norm or a bias, factors
    of channels are multiplied into its kernel, and it adds the numbers of channels and
    computes ReLU, for which its map would be read and written once more. Results differ
    by rounding.

    Args:
        program: As `jax.make_jaxpr` returns it with `return_shape=True`.
        shapes: The second result of that: those of the results.
        looped: Whether the function is the body of a loop. Kernels are brought into
            oneDNN's layout before the loop then, and take memory twice.

    Returns:
        The function that was traced.
    """

    def run(*args: PyTree) -> PyTree:
        made = _run(program.jaxpr, program.consts, jax.tree.leaves(args), looped)
        leaves = [jnp.asarray(_computed(value)) for value in made]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return run


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A convolution that is not computed yet: `scale * conv(x, kernel) + shift`.

    Attributes:
        x: float32 [B, H, W, C].
        kernel: float32 [K, L, C, O], or [K, L, 1, O] if depthwise.
        window: That of the primitive.
        looped: See `fused`.
        scale: float32 [1, 1, 1, O], or None for 1.
        shift: float32 [1, 1, 1, O], or None for 0.
    """

    x: Array
    kernel: Array
    window: primitives.Window
    looped: bool
    scale: Array | None = None
    shift: Array | None = None

    def then(self, name: str, operands: Sequence[Any]) -> Any:
        """Applies an operation to this and another operand; None if it cannot fuse."""
        first, second = operands
        other = second if first is self else first
        if name == "max" and _is_zero(other):
            return self.rectified()
        channels = (1, 1, 1, self.kernel.shape[3])
        if isinstance(other, _Pending) or jnp.shape(other) != channels:
            return None
        if name == "mul":
            scale = other if self.scale is None else self.scale * other
            shift = None if self.shift is None else self.shift * other
            return dataclasses.replace(self, scale=scale, shift=shift)
        if name == "add":
            return self.plus(other)
        if name == "sub" and first is self:
            return self.plus(-other)
        return None

    def plus(self, number: Array) -> "_Pending":
        """Adds [1, 1, 1, O]."""
        shift = number if self.shift is None else self.shift + number
        return dataclasses.replace(self, shift=shift)

    def compute(self) -> jax.Array:
        """[B, H2, W2, O]."""
        window = self.window
        y = primitives.forward.bind(self.x, self.kernel, window=window, shape=None)
        y = y if self.scale is None else y * self.scale
        return y if self.shift is None else y + self.shift

    def rectified(self) -> jax.Array:
        """[B, H2, W2, O] of ReLU, in one call."""
        kernel = self.kernel if self.scale is None else self.kernel * self.scale
        zeros = jnp.zeros(kernel.shape[3], kernel.dtype)
        bias = zeros if self.shift is None else self.shift.reshape(-1)
        return primitives.rectified(
            self.x, kernel, bias, window=self.window, packed=self.looped
        )


def _is_zero(value: Any) -> bool:
    is_known = not isinstance(value, jax.core.Tracer)
    return is_known and np.ndim(value) == 0 and bool(value == 0)


def _computed(value: Any) -> Any:
    return value.compute() if isinstance(value, _Pending) else value


def _run(
    jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], looped: bool
) -> list[Any]:
    """Runs a program whose arguments and results may be pending.

    A convolution whose result is used more than once is computed at once.
    """
    read_by = [v for equation in jaxpr.eqns for v in equation.invars] + jaxpr.outvars
    uses = collections.Counter(v for v in read_by if not isinstance(v, Literal))
    values: dict[Any, Any] = {}

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else values[var]

    def write(variables: Sequence[Any], found: Sequence[Any]) -> None:
        for var, value in zip(variables, found, strict=True):
            values[var] = _computed(value) if uses[var] > 1 else value

    write(jaxpr.constvars, consts)
    write(jaxpr.invars, args)
    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        write(equation.outvars, _results(equation, operands, looped))
    return [read(var) for var in jaxpr.outvars]


def _results(equation: Any, operands: list[Any], looped: bool) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    name = primitive.name
    if primitive is primitives.forward:
        x, kernel = (_computed(operand) for operand in operands)
        return [_Pending(x, kernel, params["window"], looped)]
    pending = [operand for operand in operands if isinstance(operand, _Pending)]
    if name == "jit" and params["name"] == "add_bias" and pending:
        return [pending[0].plus(operands[1].reshape(1, 1, 1, -1))]
    if name in _CALLS and (pending or name == "jit"):
        function = params[_CALLS[name]]
        return _run(function.jaxpr, function.consts, operands, looped)
    if pending and len(operands) == 2:
        made = pending[0].then(name, operands)
        if made is not None:
            return [made]
    operands = [_computed(operand) for operand in operands]
    made = primitive.bind(*operands, **primitive.get_bind_params(params))
    return made if primitive.multiple_results else [made]
