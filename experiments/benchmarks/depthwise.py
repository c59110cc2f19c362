"""Depthwise convolutions of EfficientNet-Lite0: segjax, XLA's grouped form, PyTorch.

    pip install torch==2.13.0
    python experiments/benchmarks/depthwise.py

Milliseconds on CPU for a batch of 4 at 352x352: forward, and forward with both
gradients. The systems take turns; the fastest of the turns counts, so that pauses of a
busy machine do not. Prints a table in Markdown.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from segjax import ops

TURNS = 15
# Side, channels, kernel, stride.
LAYERS = (
    (176, 32, 3, 1),
    (176, 96, 3, 2),
    (88, 144, 5, 2),
    (44, 240, 5, 1),
    (22, 480, 3, 1),
    (22, 672, 5, 1),
    (11, 1152, 5, 1),
)


def grouped(x: jax.Array, kernel: jax.Array, *, strides: int) -> jax.Array:
    """XLA's form."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def of_jax(conv, x, kernel, g):
    """Compiled forward pass, and with gradients."""

    @jax.jit
    def both(x, kernel, g):
        y, back = jax.vjp(conv, x, kernel)
        return y, back(g)

    forward = jax.jit(conv)
    return [
        lambda: jax.block_until_ready(forward(x, kernel)),
        lambda: jax.block_until_ready(both(x, kernel, g)),
    ]


def of_torch(x, kernel, g, strides):
    """The same in PyTorch, channels last."""
    x = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous().requires_grad_()
    g = torch.from_numpy(g).permute(0, 3, 1, 2)
    around = kernel.shape[-1] - strides
    pads = [around // 2, around - around // 2] * 2

    def conv():
        return F.conv2d(F.pad(x, pads), kernel, stride=strides, groups=len(kernel))

    def forward():
        with torch.no_grad():
            return conv()

    return [forward, lambda: torch.autograd.grad(conv(), (x, kernel), g)]


def fastest(functions) -> list[float]:
    """Milliseconds of each function."""
    best = [np.inf] * len(functions)
    for turn in range(TURNS + 1):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            if turn:  # The first compiles.
                best[i] = min(best[i], 1e3 * (time.perf_counter() - start))
    return best


def main() -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    print("| side, channels, kernel, stride | forward | with gradients |")
    print("| --- | --- | --- |")
    for side, channels, size, strides in LAYERS:
        x = rng.normal(size=(4, side, side, channels)).astype(np.float32)
        kernel = rng.normal(size=(size, size, 1, channels)).astype(np.float32)
        out = -(-side // strides)
        g = rng.normal(size=(4, out, out, channels)).astype(np.float32)
        ours = functools.partial(ops.depthwise_conv, strides=strides)
        theirs = functools.partial(grouped, strides=strides)
        functions = [
            *of_jax(ours, *map(jnp.asarray, (x, kernel, g))),
            *of_jax(theirs, *map(jnp.asarray, (x, kernel, g))),
            *of_torch(x, kernel, g, strides),
        ]
        ms = fastest(functions)
        cells = [" / ".join(f"{ms[i]:.1f}" for i in (k, k + 2, k + 4)) for k in (0, 1)]
        print(f"| {side}, {channels}, {size}, {strides} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
