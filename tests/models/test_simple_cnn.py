import jax
import jax.numpy as jnp
import numpy as np

from segjax import models


def test_has_738_parameters(shapes):
    variables, _ = shapes(models.SimpleCNN(num_classes=2), 8, 8)
    assert sum(x.size for x in jax.tree.leaves(variables)) == 738


def test_receptive_field_is_five_by_five(key):
    model = models.SimpleCNN(num_classes=2)
    image = jnp.full((1, 11, 11, 3), 0.5)
    variables = model.init(key, image)
    change = model.apply(variables, image.at[0, 5, 5].set(1.0)) - model.apply(
        variables, image
    )
    rows, columns = np.nonzero(np.abs(change[0]).max(axis=-1))
    assert rows.min() == columns.min() == 3
    assert rows.max() == columns.max() == 7
