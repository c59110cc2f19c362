# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A loss of your own
#
# A loss is a function `(logits [B, H, W, C], labels [B, H, W], valid [B, H, W]) ->
# [B]`. Write one, check it, and train with it.

# %%
import sys

if "google.colab" in sys.modules:  # Colab: choose a GPU runtime, then run this cell.
    import subprocess

    project = "git+https://ADDRESS-OF-THE-PROJECT/segjax"
    package = f"segjax[report] @ {project}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", package])

# %%
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from segjax import data, losses, metrics, models, train


# %% [markdown]
# ## Write it
#
# The Brier score: the squared distance of the probabilities to the truth. It is
# bounded, so that a wrong label costs at most 2.


# %%
def brier(logits, labels, valid):
    """Squared distance of probabilities to the one-hot labels, over valid pixels."""
    truth = jax.nn.one_hot(labels, logits.shape[-1])
    error = jnp.sum((jax.nn.softmax(logits) - truth) ** 2, axis=-1)
    return jnp.sum(error * valid, (1, 2)) / jnp.maximum(jnp.sum(valid, (1, 2)), 1)


# %% [markdown]
# ## Check it
#
# By hand, by finite differences, and that pixels that are not valid do not matter.

# %%
sure = jnp.array([[[[30.0, 0.0], [30.0, 0.0]]]])
labels = jnp.array([[[0, 1]]])
both = jnp.ones((1, 1, 2), bool)
np.testing.assert_allclose(brier(sure, labels, both), [1.0], atol=1e-5)  # 0 and 2.
only_first = jnp.array([[[True, False]]])
np.testing.assert_allclose(brier(sure, labels, only_first), [0.0], atol=1e-5)

logits = jax.random.normal(jax.random.key(0), (1, 3, 4, 5))
labels = jax.random.randint(jax.random.key(1), (1, 3, 4), 0, 5)
valid = jnp.ones((1, 3, 4), bool)
gradient = jax.grad(lambda z: brier(z, labels, valid)[0])(logits)
step = jnp.zeros_like(logits).at[0, 1, 2, 3].set(1e-2)
slope = (
    brier(logits + step, labels, valid) - brier(logits - step, labels, valid)
) / 2e-2
np.testing.assert_allclose(gradient[0, 1, 2, 3], slope[0], rtol=1e-2)
print("gradient and finite difference agree:", f"{slope[0]:.4f}")

# %% [markdown]
# ## Its gradient
#
# The gradient at a pixel of class 1, as the network grows surer of class 1.
# The gradient of cross-entropy is largest where the network is sure and wrong; that of
# the Brier score vanishes there.

# %%
margins = np.linspace(-8, 8, 65, dtype=np.float32)
pixels = jnp.stack([jnp.zeros(65), margins], -1)[:, None, None]
ones = jnp.ones((65, 1, 1), int)
for name, loss in (("cross-entropy", losses.cross_entropy), ("Brier", brier)):
    gradient = jax.grad(lambda z, loss=loss: loss(z, ones, ones > 0).sum())(pixels)
    plt.plot(margins, gradient[:, 0, 0, 1], label=name)
plt.xlabel("logit of the right class, less the other")
plt.ylabel("gradient")
plt.legend()
plt.show()

# %% [markdown]
# ## Train with it
#
# `losses.semantic` takes it like any other; the log lists every term by its name.

# %%
digits = data.digits()


def trained(**terms):
    """60 updates of a SimpleCNN; returns the lines of its log."""
    run = pathlib.Path(tempfile.mkdtemp()) / "run"
    train.train(
        train.Experiment(
            config=train.TrainConfig(steps=60, batch_size=16, log_every=20),
            data=data.Pipeline(dataset=digits),
            model=models.SimpleCNN(num_classes=11),
            objective=losses.semantic(**terms),
            optimizer=optax.adam(1e-2),
            metric=metrics.semantic(digits.classes),
        ),
        run=run,
    )
    return (run / "metrics.jsonl").read_text().splitlines()


lines = trained(brier=(1.0, brier), dice=(0.5, losses.soft_dice))
print(lines[0])
assert '"loss/brier"' in lines[0]

# %% [markdown]
# To contribute it: `CONTRIBUTING.md`. One line in `tests/contracts/test_losses.py` runs
# it through the checks of all losses.
