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
# # Mask R-CNN
#
# Instance segmentation: a box, a class and a mask for every object. A small network,
# for a few updates; `experiments/digits_mask_rcnn.py` trains it for 2,000 (8 minutes on
# 2 CPU cores) to a mask AP50 of 0.96.

# %%
import sys

if "google.colab" in sys.modules:  # Colab: choose a GPU runtime, then run this cell.
    import subprocess

    project = "git+https://ADDRESS-OF-THE-PROJECT/segjax"
    package = f"segjax[report,coco] @ {project}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", package])

# %%
import dataclasses
import json
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import optax

import segjax
from segjax import data, losses, metrics, models, train, viz

run = pathlib.Path(tempfile.mkdtemp()) / "run"
digits = data.digits()

# %% [markdown]
# ## Objects
#
# With `max_objects=4` a batch has boxes, classes and masks in four slots for each
# image; `object_mask` is False in empty ones.

# %%
pipeline = data.Pipeline(dataset=digits, max_objects=4)
batch = next(pipeline.train_batches(batch_size=4, seed=0))
print({name: batch[name].shape for name in ("boxes", "masks", "object_mask")})
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
for i, axis in enumerate(axes):
    there = batch["object_mask"][i]
    objects = {name: batch[name][i][there] for name in ("boxes", "classes", "masks")}
    axis.imshow(viz.instances(batch["image"][i], objects, classes=digits.classes))
    axis.axis("off")

# %% [markdown]
# ## The parts
#
# A body, a feature pyramid, a region proposal network with its anchors, and heads for
# boxes and masks.

# %%
norm = models.layers.group_norm
model = models.MaskRCNN(
    body=models.resnet18(width=8, norm=norm),
    fpn=models.FPN(features=32, norm=norm),
    rpn=models.RPN(
        anchor_sizes=((14,), (20,), (28,), (40,), (56,)),
        pre_nms_top_n_train=32,
        pre_nms_top_n_test=32,
        post_nms_top_n_train=16,
        post_nms_top_n_test=16,
        batch_size_per_image=16,
    ),
    roi_heads=models.RoIHeads(
        len(digits.classes),
        box_width=64,
        mask_convs=1,
        mask_width=32,
        batch_size_per_image=8,
        detections_per_img=6,
        aligned=True,
    ),
)

# %% [markdown]
# ## Train
#
# `losses.instance()` is its five losses; the log lists each.

# %%
few = dataclasses.replace(
    digits,
    splits={
        name: [split[i] for i in range(512 if name == "train" else 32)]
        for name, split in digits.splits.items()
    },
)
result = train.train(
    train.Experiment(
        config=train.TrainConfig(
            steps=80, batch_size=8, log_every=20, monitor="box_ap"
        ),
        data=data.Pipeline(dataset=few, max_objects=4),
        model=model,
        objective=losses.instance(),
        optimizer=optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(2e-3)),
        metric=metrics.detections(digits.classes),
        model_inputs=models.mask_rcnn_inputs,
    ),
    run=run,
)
print({name: round(result["metrics"][name], 3) for name in ("box_ap", "mask_ap")})

# %% [markdown]
# Precision after so few updates is near 0. What training does in them shows in the
# losses:

# %%
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
lines = [line for line in lines if line["kind"] == "train"]
for name in sorted(name for name in lines[0] if name.startswith("loss/")):
    plt.plot(
        [line["step"] for line in lines], [line[name] for line in lines], label=name
    )
plt.xlabel("update")
plt.legend()
plt.show()
assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]

# %% [markdown]
# ## Predict
#
# A prediction has `objects`, best first.

# %%
detector = segjax.load(run)
prediction = detector.predict(digits.splits["test"][0]["image"])
best = prediction.objects
print("scores:", np.round(best["scores"][:3], 2))
