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
# # Quickstart
#
# Train a U-Net on scenes of handwritten digits, swap the loss, and look inside. Two
# minutes on a CPU.

# %%
import sys

if "google.colab" in sys.modules:  # Colab: choose a GPU runtime, then run this cell.
    import subprocess

    project = "git+https://ADDRESS-OF-THE-PROJECT/segjax"
    package = f"segjax[report] @ {project}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", package])

# %%
import functools
import pathlib
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import segjax
from segjax import data, losses, metrics, models, train, viz

runs = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## Data
#
# `data.digits` has 6,000 scenes for training and 500 each for validation and test. They
# are made once, from the digits that come with segjax.

# %%
digits = data.digits()
colors = viz.palette(len(digits.classes))
figure, axes = plt.subplots(2, 4, figsize=(8, 4), layout="constrained")
for i, (top, bottom) in enumerate(axes.T):
    example = digits.splits["train"][i]
    top.imshow(example["image"])
    bottom.imshow(viz.label_to_rgb(example["label"], colors))
    top.axis("off")
    bottom.axis("off")


# %% [markdown]
# ## An experiment is a function
#
# Everything that training needs is an argument. Here the loss is the one that changes.


# %%
def experiment(objective, steps=500):
    """A small U-Net, 500 updates of 8 images."""
    return train.Experiment(
        config=train.TrainConfig(steps=steps, batch_size=8, log_every=100),
        data=data.Pipeline(dataset=digits),
        model=models.UNet(
            num_classes=len(digits.classes),
            widths=(16, 32, 64),
            norm=models.layers.batch_norm,
        ),
        objective=objective,
        optimizer=optax.adamw(optax.cosine_decay_schedule(5e-3, steps)),
        metric=metrics.semantic(digits.classes),
    )


# %% [markdown]
# ## Train with cross-entropy
#
# Nine of ten pixels are background, so digits get a larger weight.

# %%
weights = (1.0, *[4.0] * 10)
cross_entropy = functools.partial(losses.cross_entropy, class_weights=weights)
first = train.train(
    experiment(losses.semantic(ce=(1.0, cross_entropy))), run=runs / "ce"
)

# %% [markdown]
# ## Swap the loss
#
# One argument. Nothing else of the program changes.

# %%
second = train.train(
    experiment(losses.semantic(ce=(1.0, cross_entropy), dice=(1.0, losses.soft_dice))),
    run=runs / "ce_dice",
)
for name, result in (("cross-entropy", first), ("with Dice", second)):
    print(f"{name}: mean IoU {result['metrics']['mean_iou']:.2f}")
assert second["metrics"]["mean_iou"] > 0.15

# %% [markdown]
# These are 500 updates of 8 images; `make demo` does 1,875 of 16 and reaches 0.89.
#
# ## Predict
#
# A run folder is a model.

# %%
model = segjax.load(runs / "ce_dice")
figure, axes = plt.subplots(2, 4, figsize=(8, 4), layout="constrained")
for i, (top, bottom) in enumerate(axes.T):
    image = digits.splits["test"][i]["image"]
    top.imshow(image)
    bottom.imshow(model.predict(image).overlay())
    top.axis("off")
    bottom.axis("off")

# %% [markdown]
# ## Look inside
#
# A model's variables are a dictionary of arrays. These are the kernels of the first
# convolution, and the probabilities of one class for an image.

# %%
image = digits.splits["test"][0]["image"]
for name, kernel in list(jax.tree.leaves_with_path(model.variables["params"]))[:4]:
    print(jax.tree_util.keystr(name), kernel.shape)
prediction = model.predict(image)
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
present = [c for c in np.unique(digits.splits["test"][0]["label"]) if c]
axes[0].imshow(image)
for axis, c in zip(axes[1:], (0, *present), strict=False):
    axis.imshow(prediction.probabilities[..., c], vmin=0, vmax=1)
    axis.set_title(f"P({digits.classes[c]})")
for axis in axes:
    axis.axis("off")
