"""Convolution and its two gradients by oneDNN, as primitives of JAX.

Each of the three is linear in both of its arguments, and its derivatives are the other
two, so that all of JAX's transformations work, to any order. One more, for inference,
adds a number to each channel and computes ReLU in the same call. In a loop, it takes a
kernel that was brought into oneDNN's layout before.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from segjax.onednn import library
from segjax.typing import Array

Pads = Sequence[tuple[int, int]]
Shape = tuple[int, ...]
Window = tuple[int, int, int, int, int, int]
"""Stride, dilation, and zeros above, left, below, right: as in convolutions.cc."""


def takes(x: Array, kernel: Array) -> bool:
    """Whether oneDNN is there, and computes convolutions of such arrays.

    Not in a `jax.shard_map` that checks what varies over devices.
    """
    sizes = (*x.shape, *kernel.shape)
    return (
        x.dtype == kernel.dtype == jnp.float32
        and all(isinstance(n, int) and n > 0 for n in sizes)
        and not any(_varies(a) for a in (x, kernel))
        and library.version() is not None
    )


def _varies(a: Array) -> bool:
    """Whether JAX keeps an account of the devices over which an array varies."""
    axes = getattr(jax.typeof(a), "manual_axis_type", None)
    return bool(getattr(axes, "varying", None))


def convolution(
    x: Array, kernel: Array, *, strides: int, dilation: int, padding: str | Pads
) -> jax.Array:
    """Convolves images as `jax.lax.conv_general_dilated` does.

    In a program for several devices, and in an exported one, XLA computes it.

    Args:
        x: float32 [B, H, W, C].
        kernel: float32 [K, L, C, O]; or [K, L, 1, C] for a depthwise convolution.
        strides: Pixels between outputs.
        dilation: Pixels between entries of the kernel.
        padding: "SAME" or "VALID", or zeros above and below, left and right, which are
            not negative.

    Returns:
        float32 [B, H2, W2, O].
    """
    if isinstance(padding, str):
        spread = [dilation * (n - 1) + 1 for n in kernel.shape[:2]]
        steps = (strides, strides)
        padding = jax.lax.padtype_to_pads(x.shape[1:3], spread, steps, padding)
    (above, below), (left, right) = padding
    window = (strides, dilation, above, left, below, right)
    return forward.bind(x, kernel, window=window, shape=None)


def rectified(
    x: Array, kernel: Array, bias: Array, *, window: Window, packed: bool
) -> jax.Array:
    """Convolves, adds a number to each channel, and computes ReLU.

    Args:
        x: float32 [B, H, W, C].
        kernel: As for `convolution`.
        bias: float32 [O].
        window: See `Window`.
        packed: Brings the kernel into oneDNN's layout by an operation of its own, which
            XLA moves out of a loop. Otherwise each call does that.

    Returns:
        float32 [B, H2, W2, O]; NaN stays NaN.
    """
    if packed:
        copy = _pack.bind(kernel, window=window, shape=x.shape)
    else:
        copy = jnp.zeros(0, kernel.dtype)
    return _rectified.bind(x, kernel, copy, bias, window=window, shape=None)


def by_xla(
    x: Array, kernel: Array, *, window: Window, shape: Shape | None = None
) -> jax.Array:
    """Computes `convolution` by XLA."""
    del shape
    stride, dilation, above, left, below, right = window
    return jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (stride, stride),
        ((above, below), (left, right)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def _input_gradient_by_xla(
    g: Array, kernel: Array, *, window: Window, shape: Shape
) -> jax.Array:
    x = jax.ShapeDtypeStruct(shape, g.dtype)
    return jax.linear_transpose(lambda x: by_xla(x, kernel, window=window), x)(g)[0]


def _kernel_gradient_by_xla(
    x: Array, g: Array, *, window: Window, shape: Shape
) -> jax.Array:
    kernel = jax.ShapeDtypeStruct(shape, g.dtype)
    return jax.linear_transpose(lambda k: by_xla(x, k, window=window), kernel)(g)[0]


def _primitive(
    target: str,
    compute: Callable[..., jax.Array],
    attributes: Sequence[str] = ("window",),
) -> Primitive:
    """Makes a primitive that XLA computes by `compute` where oneDNN does not.

    Args:
        target: The name of oneDNN's function.
        compute: The form for XLA.
        attributes: Names of those parameters that oneDNN's function takes.
    """
    primitive = Primitive(f"onednn_{target}")
    portable = mlir.lower_fun(compute, multiple_results=False)
    call = jax.ffi.ffi_lowering(f"segjax_onednn_{target}")

    @functools.partial(jax.jit, static_argnames=("window", "shape"))
    def run(*args: Array, window: Window, shape: Shape | None) -> Any:
        return primitive.bind(*args, window=window, shape=shape)

    def aval(*args: Any, **params: Any) -> Any:
        made = jax.make_jaxpr(functools.partial(compute, **params))(*args)
        return made.out_avals[0]

    def batched(args: Any, axes: Any, **params: Any) -> tuple[Any, int]:
        return jax.vmap(functools.partial(compute, **params), axes)(*args), 0

    def lower(ctx: Any, *args: Any, window: Window, shape: Shape | None) -> Any:
        module = ctx.module_context
        devices = getattr(module.axis_context, "num_devices", 1)
        if devices != 1 or module.lowering_parameters.for_export:
            return portable(ctx, *args, window=window, shape=shape)
        params = {"window": window, "shape": shape}
        numbers = {name: np.array(params[name], np.int64) for name in attributes}
        return call(ctx, *args, **numbers)

    primitive.def_impl(run)
    primitive.def_abstract_eval(aval)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, portable)
    mlir.register_lowering(primitive, lower, platform="cpu")
    return primitive


forward = _primitive("forward", by_xla)
"""The primitive of `convolution`."""
_input_gradient = _primitive("input_gradient", _input_gradient_by_xla)
_kernel_gradient = _primitive("kernel_gradient", _kernel_gradient_by_xla)

# A rule of transposition gets both arguments, of the one that it is for only the shape.
ad.defbilinear(
    forward,
    lambda g, x, kernel, *, window, shape: _input_gradient.bind(
        g, kernel, window=window, shape=x.aval.shape
    ),
    lambda g, x, kernel, *, window, shape: _kernel_gradient.bind(
        x, g, window=window, shape=kernel.aval.shape
    ),
)
ad.defbilinear(
    _input_gradient,
    lambda ct, g, kernel, *, window, shape: forward.bind(
        ct, kernel, window=window, shape=None
    ),
    lambda ct, g, kernel, *, window, shape: _kernel_gradient.bind(
        ct, g, window=window, shape=kernel.aval.shape
    ),
)
ad.defbilinear(
    _kernel_gradient,
    lambda ct, x, g, *, window, shape: _input_gradient.bind(
        g, ct, window=window, shape=x.aval.shape
    ),
    lambda ct, x, g, *, window, shape: forward.bind(x, ct, window=window, shape=None),
)


def _space(kernel: Array, *, window: Window, shape: Shape) -> jax.Array:
    """An array for a packed kernel, in whose layout outputs are rounded up to 16."""
    del window, shape
    outputs = -(-kernel.shape[3] // 16) * 16
    return jnp.zeros(kernel.size // kernel.shape[3] * outputs, kernel.dtype)


def _rectified_apart(
    x: Array, kernel: Array, packed: Array, bias: Array, **params: Any
) -> jax.Array:
    del packed  # By XLA, it is only space.
    y = forward.bind(x, kernel, **params)
    return jax.nn.relu(y + bias[None, None, None])


def _derivative(compute: Callable[..., jax.Array]) -> Callable[..., Any]:
    def jvp(primals: Any, tangents: Any, **params: Any) -> Any:
        tangents = tuple(ad.instantiate_zeros(t) for t in tangents)
        return jax.jvp(functools.partial(compute, **params), primals, tangents)

    return jvp


_pack = _primitive("pack", _space, attributes=("window", "shape"))
_rectified = _primitive("rectified", _rectified_apart)
ad.primitive_jvps[_pack] = _derivative(_space)
ad.primitive_jvps[_rectified] = _derivative(_rectified_apart)
