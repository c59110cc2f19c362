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
# # Seeds and statistics
#
# One run says little. Train three seeds of two losses in one program each, and ask
# whether the difference is real.

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

from segjax import data, losses, metrics, models, train

runs = pathlib.Path(tempfile.mkdtemp())
digits = data.digits()


# %%
def experiment(objective, seed):
    """80 updates of a SimpleCNN."""
    return train.Experiment(
        config=train.TrainConfig(steps=80, batch_size=16, seed=seed),
        data=data.Pipeline(dataset=digits),
        model=models.SimpleCNN(num_classes=11),
        objective=objective,
        optimizer=optax.adam(2e-2),
        metric=metrics.semantic(digits.classes),
    )


# %% [markdown]
# ## Three seeds in one program
#
# `segjax seeds SCRIPT --seeds 0 1 2` does this from a shell. Each seed has its own
# initialization and data order, as if it ran alone.

# %%
OBJECTIVES = {
    "cross-entropy": losses.semantic(ce=(1.0, losses.cross_entropy)),
    "balanced": losses.semantic(ce=(1.0, losses.balanced_cross_entropy)),
}
scores = {}
for name, objective in OBJECTIVES.items():
    results = train.train_seeds(
        [experiment(objective, seed) for seed in (0, 1, 2)], run=runs / name
    )
    scores[name] = np.array([r["metrics"]["mean_recall"] for r in results])
    print(name, scores[name].round(3))

# %% [markdown]
# ## Mean and interval
#
# Student's t: wide for three seeds, and right. The standard deviation is not the
# interval of the mean.

# %%
for position, (name, values) in enumerate(scores.items()):
    interval = metrics.mean_interval(values)
    print(f"{name}: {interval}")
    plt.plot(values, np.full(3, position), "o", color="#0072b2")
    plt.plot([interval.low, interval.high], [position, position], color="#0072b2")
plt.yticks(range(len(scores)), list(scores))
plt.xlabel("mean recall")
plt.ylim(-0.5, 1.5)
plt.show()

# %% [markdown]
# ## Is the difference real?
#
# Seeds are pairs: they share the initialization and the order of the data. With three
# pairs no test can give a p-value below 0.25, so read the interval of the difference.

# %%
comparison = metrics.compare(scores["balanced"], scores["cross-entropy"])
print(comparison)
print("smallest possible p-value:", comparison.min_p_value)
assert comparison.min_p_value == 0.25
assert comparison.difference > 0  # Equal weights for classes raise the recall.

# %% [markdown]
# Several comparisons need a correction:

# %%
print(metrics.holm([0.01, 0.04, 0.03]))
