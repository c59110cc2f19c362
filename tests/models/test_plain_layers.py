"""Fast implementations of layers equal plain ones, in value and gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from segjax.models import layers
from segjax.models.decoders import fpn
from segjax.models.detection import heads
from tests import plain_form

SEEDS = st.integers(0, 999)


class Bilinear(nn.Module):
    """Makes a module of `layers.bilinear`."""

    features: int

    @nn.compact
    def __call__(self, x):
        return layers.bilinear(x, self.features, name="conv")


def _convolve_then_resize(x, kernel, bias):
    variables = {"params": {"conv": {"kernel": kernel, "bias": bias}}}
    return Bilinear(bias.size).apply(variables, x)


def _resize_then_convolve(x, kernel, bias):
    x = ops.resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))
    return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0]) + bias[None, None, None]


@settings(max_examples=16, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1, 1), (2, 3, 5, 4, 2), (1, 1, 4, 1, 3)]),
    seed=SEEDS,
)
def test_bilinear_upsampling_and_its_convolution_commute(shape, seed):
    *image, features = shape
    rng = np.random.default_rng(seed)
    x, kernel, bias = (
        rng.normal(size=s).astype(np.float32)
        for s in (image, (1, 1, image[-1], features), features)
    )
    fast, plain = _convolve_then_resize, _resize_then_convolve
    plain_form.check(fast, plain, x, kernel, bias, rng=rng)


def _of_the_class_alone(x, kernel, bias, classes):
    variables = {"params": {"kernel": kernel, "bias": bias}}
    layer = heads._Logits(bias.size)
    return layer.apply(variables, x, classes.astype(int))


def _of_all_classes(x, kernel, bias, classes):
    logits = jnp.einsum("nhwf,fc->nhwc", x, kernel) + bias[None, None, None]
    chosen = classes.astype(int)[:, None, None, None]
    return jnp.take_along_axis(logits, chosen, axis=-1)[..., 0]


@settings(max_examples=16, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (5, 3, 4, 1), (4, 7, 2, 3)]),
    seed=SEEDS,
)
def test_logits_of_one_class_equal_those_of_all(shape, seed):
    number, side, features, classes = shape
    rng = np.random.default_rng(seed)
    x, kernel, bias = (
        rng.normal(size=s).astype(np.float32)
        for s in ((number, side, side, features), (features, classes), classes)
    )
    chosen = rng.integers(0, classes, number).astype(np.float32)  # Gradient 0.
    fast, plain = _of_the_class_alone, _of_all_classes
    plain_form.check(fast, plain, x, kernel, bias, chosen, rng=rng)


def _repeated(x):
    # An odd size is one less than twice the coarser map's.
    return fpn._double(x, (len(x), 2 * x.shape[1] - 1, 2 * x.shape[2], x.shape[3]))


def _resized(x):
    size = 2 * x.shape[1], 2 * x.shape[2]
    return jax.image.resize(x, (len(x), *size, x.shape[3]), "nearest")[:, :-1]


@settings(max_examples=16, deadline=None)
@given(shape=st.sampled_from([(1, 1, 1, 1), (2, 3, 5, 2)]), seed=SEEDS)
def test_repeating_is_nearest_resizing(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    plain_form.check(_repeated, _resized, x, rng=rng)
