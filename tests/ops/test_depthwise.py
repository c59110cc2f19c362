import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops
from segjax.ops.convolution import conv_by_xla


def plain(x, kernel, strides, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


CASES = [
    # batch, height, width, kernel, strides, dilation
    (2, 9, 12, 3, 1, 1),
    (3, 8, 7, 3, 2, 1),
    (1, 11, 10, 5, 2, 1),
    (9, 5, 4, 5, 1, 1),
    (16, 6, 5, 3, 1, 2),
    (2, 7, 9, 3, 2, 3),
    (2, 1, 1, 5, 2, 1),
    (2, 300, 301, 3, 2, 1),
]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_grouped_convolution(case, rng):
    batch, height, width, size, strides, dilation = case
    x = rng.normal(size=(batch, height, width, 6)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 6)).astype(np.float32)
    run = functools.partial(ops.depthwise_conv, strides=strides, dilation=dilation)
    want, back = jax.vjp(lambda x, k: plain(x, k, strides, dilation), x, kernel)
    got, our_back = jax.vjp(run, x, kernel)
    np.testing.assert_allclose(got, want, atol=1e-5)
    g = rng.normal(size=want.shape).astype(np.float32)
    rounding = 1e-4 + 1e-7 * g[..., 0].size  # Of sums over all pixels.
    for ours, theirs in zip(our_back(g), back(g), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=rounding, rtol=1e-5)


def test_batched(rng):
    """As several seeds in one program call it."""
    x = rng.normal(size=(3, 2, 5, 6, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 1, 4)).astype(np.float32)

    def loss(x, kernel):
        return jnp.sum(ops.depthwise_conv(x, kernel) ** 2)

    got = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1))))(x, kernel)
    for i in range(3):
        want = jax.grad(loss, argnums=(0, 1))(x[i], kernel[i])
        for ours, alone in zip(got, want, strict=True):
            np.testing.assert_allclose(ours[i], alone, rtol=1e-5, atol=1e-4)


def test_the_form_of_other_devices(rng):
    x = rng.normal(size=(2, 7, 8, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 3)).astype(np.float32)
    got = conv_by_xla(x, kernel, strides=2, padding=((1, 1), (0, 1)))
    np.testing.assert_allclose(got, ops.depthwise_conv(x, kernel, strides=2), atol=1e-5)


def test_one_pixel_by_hand():
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    got = ops.depthwise_conv(jnp.full((1, 1, 1, 1), 2.0), kernel)
    assert got.shape == (1, 1, 1, 1)
    assert got[0, 0, 0, 0] == 8.0


def test_second_derivative(rng):
    x = rng.normal(size=(1, 4, 5, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 2)).astype(np.float32)

    def curvature(conv):
        def slope(k):
            return jnp.sum(jax.grad(lambda v: jnp.sum(conv(v, k) ** 3))(x) ** 2)

        return jax.grad(slope)(kernel)

    want = curvature(lambda v, k: plain(v, k, 1, 1))
    np.testing.assert_allclose(curvature(ops.depthwise_conv), want, rtol=1e-3)


def test_dtype_is_that_of_the_image(rng):
    x = jnp.asarray(rng.normal(size=(2, 5, 6, 4)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32)
    got, back = jax.vjp(ops.depthwise_conv, x, kernel)
    dx, dkernel = back(jnp.ones_like(got))
    assert (got.dtype, dx.dtype, dkernel.dtype) == (x.dtype, x.dtype, kernel.dtype)
    want = jax.grad(lambda k: jnp.sum(plain(jnp.float32(x), k, 1, 1)))(kernel)
    np.testing.assert_allclose(dkernel, want, rtol=1e-4, atol=1e-4)


def test_matches_flax(rng, key):
    x = rng.normal(size=(2, 9, 9, 4)).astype(np.float32)
    layer = nn.Conv(4, (3, 3), 2, feature_group_count=4, use_bias=False)
    variables = layer.init(key, x)
    got = ops.depthwise_conv(x, variables["params"]["kernel"], strides=2)
    np.testing.assert_allclose(got, layer.apply(variables, x), atol=1e-5)


def test_message():
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        ops.depthwise_conv(jnp.zeros((1, 2, 2, 1)), jnp.zeros((3, 3, 1, 1)), strides=0)
