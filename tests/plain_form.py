"""A fast form beside the plain one: values to 1e-6 and gradients to 1e-5."""

import functools

import jax
import numpy as np


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(f, arguments, weight):
    """The value, and the gradients of its sum weighted by `weight`."""
    value, pull = jax.vjp(f, *arguments)
    return value, pull(weight)


def check(fast, plain, *arguments, rng):
    """Compares two functions of float arrays.

    Give the same function objects each time: each new one compiles again. Tolerances
    are relative to the largest number of an array, and at least to 1.
    """
    shape = jax.eval_shape(plain, *arguments)
    weight = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shape)
    got, grads = value_and_gradients(fast, arguments, weight)
    want, wanted_grads = value_and_gradients(plain, arguments, weight)
    close(got, want, 1e-6)
    close(grads, wanted_grads, 1e-5)


def close(got, want, tolerance):
    """Compares trees of arrays, relative to the largest number of each."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(1.0, float(np.max(np.abs(b), initial=0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)
