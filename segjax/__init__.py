"""Image segmentation in JAX as pure functions.

Subpackages load when first used, so that `import segjax` stays light.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    import pathlib

    from segjax import cli as cli
    from segjax import data as data
    from segjax import forward as forward
    from segjax import inference as inference
    from segjax import interop as interop
    from segjax import losses as losses
    from segjax import metrics as metrics
    from segjax import model_file as model_file
    from segjax import models as models
    from segjax import ops as ops
    from segjax import train as train
    from segjax import typing as typing
    from segjax import viz as viz

__version__ = "0.1.0"

_SUBPACKAGES = frozenset(
    "cli data forward inference interop losses metrics model_file models ops train "
    "typing viz".split()
)


def load(run: "str | os.PathLike", *, trust: bool = False) -> "inference.Model":
    """Loads the model of a run, ready to predict.

        model = segjax.load("runs/demo")
        model.predict("photo.jpg").overlay()

    The folder's `model.json` and its variables are all that is read: neither the data
    set nor the optimizer, and none of the experiment's Python is executed.

    Args:
        run: A run folder.
        trust: Allows to execute the folder's `experiment.py`, for models that are
            partly code of their user: a module, a norm or a preprocessing that is not
            segjax's own. Others never need it.

    Raises:
        ValueError: If the folder has no model, or a damaged one.
        inference.NeedsCodeError: If the model needs its script and `trust` is False.
    """
    inference = importlib.import_module("segjax.inference")
    return inference.load(run, trust=trust, build=_experiment_of)


def _experiment_of(run: "pathlib.Path"):
    """Builds a run's experiment by executing its script."""
    # Training's libraries load only here.
    return importlib.import_module("segjax.cli.runs").experiment_of(run)


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"segjax.{name}")
    raise AttributeError(f"module 'segjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
