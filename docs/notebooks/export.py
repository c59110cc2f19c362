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
# # Export
#
# A trained model as one file, which runs without segjax: on a CPU, a GPU or a TPU, for
# any number of images of any size.

# %%
import sys

if "google.colab" in sys.modules:  # Colab: choose a GPU runtime, then run this cell.
    import subprocess

    project = "git+https://ADDRESS-OF-THE-PROJECT/segjax"
    package = f"segjax[report,export] @ {project}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", package])

# %%
import json
import pathlib
import tempfile
import zipfile

import jax
import jax.export
import matplotlib.pyplot as plt
import numpy as np
import optax

import segjax
from segjax import data, export, losses, metrics, models, train

work = pathlib.Path(tempfile.mkdtemp())
digits = data.digits()

# %% [markdown]
# ## A model

# %%
train.train(
    train.Experiment(
        config=train.TrainConfig(steps=60, batch_size=16),
        data=data.Pipeline(dataset=digits),
        model=models.SimpleCNN(num_classes=11, width=32),
        objective=losses.semantic(ce=(1.0, losses.balanced_cross_entropy)),
        optimizer=optax.adam(2e-2),
        metric=metrics.semantic(digits.classes),
    ),
    run=work / "run",
)
model = segjax.load(work / "run")

# %% [markdown]
# ## One file
#
# `segjax export RUN --out digits.segjax` from a shell. Inside: the program, and what
# its inputs and outputs mean.

# %%
export.save(model, work / "digits.segjax")
with zipfile.ZipFile(work / "digits.segjax") as file:
    about = json.loads(file.read("metadata.json"))
    program = jax.export.deserialize(bytearray(file.read("program.stablehlo")))
print(f"{(work / 'digits.segjax').stat().st_size / 1e3:.0f} kB")
print({name: about[name] for name in ("task", "classes", "image")})

# %% [markdown]
# ## Run it
#
# With JAX alone: a batch of images as stored, and their sizes.

# %%
images = np.stack([digits.splits["test"][i]["image"] for i in range(4)])
sizes = np.full((4, 2), 32, np.int32)
outputs = jax.device_get(jax.jit(program.call)(images, sizes))
print({name: value.shape for name, value in outputs.items()})

# %% [markdown]
# The results are those of the model, to rounding:

# %%
for image, probabilities in zip(images, outputs["probabilities"], strict=True):
    same = model.predict(image).probabilities
    np.testing.assert_allclose(probabilities[:32, :32], same, atol=1e-5)
loaded = export.load(work / "digits.segjax")
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for axis, image in zip(axes, images, strict=True):
    axis.imshow(loaded.predict(image).overlay())
    axis.axis("off")
