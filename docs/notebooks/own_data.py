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
# # Own data
#
# From a folder of images and masks to predictions. The first cell after the imports
# writes a folder as yours could be; with your own, skip it and set `source`.

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

import matplotlib.pyplot as plt
import numpy as np
import optax
from PIL import Image

import segjax
from segjax import data, losses, metrics, models, train

work = pathlib.Path(tempfile.mkdtemp())
source = work / "cells"

# %% [markdown]
# ## A folder
#
#     cells/images/0.png   cells/masks/0.png   cells/classes.txt
#
# A mask has its image's name and size, and class ids 0, 1, ...; 255 is "no class".

# %%
rng = np.random.default_rng(0)
y, x = np.mgrid[:64, :64]
for folder in ("images", "masks"):
    (source / folder).mkdir(parents=True)
(source / "classes.txt").write_text("background\ncell\nnucleus\n")
for i in range(40):
    mask = np.zeros((64, 64), np.uint8)
    for cy, cx in rng.integers(12, 52, (3, 2)):
        distance = np.hypot(y - cy, (x - cx) * rng.uniform(0.8, 1.2))
        mask[distance < 10] = 1
        mask[distance < 4] = 2
    light = np.array([40, 110, 190])[mask] + rng.normal(0, 20, mask.shape)
    pixels = np.clip(light, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(source / f"images/{i}.png")
    Image.fromarray(mask).save(source / f"masks/{i}.png")

# %% [markdown]
# ## Read it
#
# Every file is checked. One that does not fit is named, with the reason:

# %%
extra = source / "masks/40.png"
Image.fromarray(np.zeros((10, 10), np.uint8)).save(extra)
try:
    data.folder(source)
except segjax.UserError as error:
    print(error)
extra.unlink()

cells = data.folder(source)
print(cells.classes, {name: len(split) for name, split in cells.splits.items()})

# %% [markdown]
# ## Train

# %%
experiment = train.Experiment(
    config=train.TrainConfig(steps=60, batch_size=8, log_every=20),
    data=data.Pipeline(dataset=cells, size=64),
    augment=data.augment.horizontal_flip,
    model=models.UNet(
        num_classes=len(cells.classes),
        widths=(8, 16, 16),
        norm=models.layers.batch_norm,
    ),
    objective=losses.semantic(
        ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
    ),
    optimizer=optax.adamw(optax.cosine_decay_schedule(1e-2, 60)),
    metric=metrics.semantic(cells.classes),
)
result = train.train(experiment, run=work / "run")
scores = result["metrics"]
print({name: round(scores[f"iou/{name}"], 2) for name in cells.classes})
assert scores["mean_iou"] > 0.6

# %% [markdown]
# ## Predict
#
# A file or an array; images of any size.

# %%
model = segjax.load(work / "run")
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for i, axis in enumerate(axes):
    axis.imshow(model.predict(source / f"images/{i}.png").overlay())
    axis.axis("off")

# %% [markdown]
# The same from a shell:
#
#     segjax train --data cells --run runs/cells
#     segjax predict runs/cells new_images/ --out predictions
