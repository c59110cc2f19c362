"""A network on a shrunk image: sizes, values and names of variables."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models import layers


class Pixels(nn.Module):
    """Returns the image that the network is given."""

    margin: int = 0

    def __call__(self, image, *, train=False):
        return image


@pytest.mark.parametrize("factor", [2, 4])
def test_a_ramp_stays_a_ramp(factor):
    """Means of blocks and bilinear interpolation are exact on linear functions."""
    y, x = np.mgrid[:24.0, :32.0]
    image = np.stack([2 * x + y, 3 - x], -1)[None].astype(np.float32)
    got = models.Shrunk(Pixels(), factor).apply({}, image)
    inner = slice(factor // 2, -(factor // 2))  # The outer half blocks are constant.
    np.testing.assert_allclose(got[:, inner, inner], image[:, inner, inner], atol=1e-4)
    np.testing.assert_allclose(got[0, 0, 0], image[0, :factor, :factor].mean((0, 1)))


def test_blocks_are_averaged():
    """A checkerboard becomes gray."""
    image = np.indices((8, 8)).sum(0)[None, ..., None] % 2
    got = models.Shrunk(Pixels(), 2).apply({}, image.astype(np.float32))
    np.testing.assert_allclose(got, 0.5)


def test_any_size_and_the_names_of_the_model_alone():
    model = models.UNet(3, widths=(4, 8), norm=layers.batch_norm)
    image = jnp.zeros((2, 37, 50, 3))
    shrunk = models.Shrunk(model, 3)
    made = jax.eval_shape(lambda: shrunk.init(jax.random.key(0), image))
    alone = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(
        lambda x: x.shape, alone
    )
    logits = jax.eval_shape(shrunk.apply, made, image)
    assert logits.shape == (2, 37, 50, 3)


@pytest.mark.parametrize(("model", "factor"), [(Pixels(), 0), (Pixels(margin=4), 2)])
def test_what_cannot_be_shrunk(model, factor):
    with pytest.raises(ValueError, match="factor of at least 1 and a model without"):
        models.Shrunk(model, factor).apply({}, jnp.zeros((1, 8, 8, 3)))
