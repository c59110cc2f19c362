import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models import layers

MODELS = {
    "simple_cnn": functools.partial(models.SimpleCNN, 3),
    "unet": functools.partial(models.UNet, 3, widths=(4, 8, 8)),
    "unet_batch_norm": functools.partial(
        models.UNet,
        3,
        widths=(4, 6),
        norm=layers.batch_norm,
        upsample=layers.bilinear,
    ),
    "fcn": functools.partial(
        models.FCN, 3, widths=(4, 6, 6), convs=(1, 1, 2), head_width=8, stride=4
    ),
}


@pytest.fixture(params=MODELS)
def build(request):
    """Makes a tiny model; takes further attributes such as dtype."""
    return MODELS[request.param]


@pytest.fixture
def shapes():
    """Shapes and dtypes of a model's variables and output, without computing."""

    def of(model, *size, batch=2):
        image = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        return variables, jax.eval_shape(model.apply, variables, image)

    return of


@pytest.fixture
def random_variables(rng):
    """Draws variables in NumPy, without compilation and without zeros."""

    def draw(path, x):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        std = 0.1 if x.ndim == 1 else (2 / np.prod(x.shape[:-1])) ** 0.5
        return rng.normal(scale=std, size=x.shape).astype(np.float32)

    def of(model):
        # Large enough for valid padding at three scales.
        image = jax.ShapeDtypeStruct((1, 44, 44, 3), jnp.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
        return jax.tree.map_with_path(draw, shapes)

    return of
