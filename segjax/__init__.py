"""Image segmentation in JAX as pure functions.

Subpackages are imported on first use, so that `import segjax` is fast.
"""

import importlib
from typing import TYPE_CHECKING

from segjax.errors import UserError

if TYPE_CHECKING:
    import os
    import pathlib

    from segjax import (
        cli,
        data,
        experiments,
        export,
        forward,
        inference,
        interop,
        losses,
        metrics,
        model_file,
        models,
        ops,
        planning,
        serve,
        train,
        typing,
        viz,
    )

__all__ = [
    "UserError",
    "cli",
    "data",
    "experiments",
    "export",
    "forward",
    "inference",
    "interop",
    "load",
    "losses",
    "metrics",
    "model_file",
    "models",
    "ops",
    "planning",
    "results",
    "serve",
    "train",
    "typing",
    "viz",
]

__version__ = "0.1.0"

_SUBPACKAGES = frozenset(__all__) - {"UserError", "load", "results"}


def load(run: "str | os.PathLike", *, trust: bool = False) -> "inference.Model":
    """Loads the model of a run, ready to predict.

        model = segjax.load("runs/demo")
        model.predict("photo.jpg").overlay()

    Only the folder's `model.json` and variables are read. Prediction needs neither the
    data set nor the optimizer, and does not execute the experiment's Python.

    Args:
        run: A run folder.
        trust: Allows executing the folder's `experiment.py`, for models with a module,
            norm or preprocessing that is not part of segjax. Other models do not need
            it.

    Raises:
        ValueError: If the folder has no model, or the model is damaged.
        inference.NeedsCodeError: If the model needs its script and `trust` is False.
    """
    inference = importlib.import_module("segjax.inference")
    return inference.load(run, trust=trust, build=_experiment_of)


def results(*runs: "str | os.PathLike") -> "list[dict[str, typing.Any]]":
    """Reads the final scores of runs, one flat row a run.

        table = pandas.DataFrame(segjax.results("runs/dice", "runs/focal"))
        table.groupby("flag.loss")["mean_iou"].agg(["mean", "std"])

    Args:
        *runs: Run folders, or folders of runs, such as those of `segjax seeds`.

    Returns:
        `run`, `experiment`, `flag.NAME` of each flag of the experiment, `seed`, `fold`
        if there is cross-validation, `split`, `seconds`, and the metrics of result.json
        by their names.

    Raises:
        ValueError: If a folder has no run, or a run is not finished.
    """
    import pathlib

    found = importlib.import_module("segjax.run_folder.results")
    folders = found.find([pathlib.Path(run) for run in runs])
    return [found.read(folder).row for folder in folders]


def _experiment_of(run: "pathlib.Path"):
    """Builds a run's experiment by executing its script."""
    # Imported here because it loads the libraries for training.
    return importlib.import_module("segjax.cli.runs").experiment_of(run)


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"segjax.{name}")
    raise AttributeError(f"module 'segjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
