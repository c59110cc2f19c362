"""The model of a run beside its checkpoints: what prediction needs, no more."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from segjax import model_file
from segjax.train.record import SaveModel
from segjax.train.saving import saving
from segjax.train.state import TrainState
from segjax.train.step import as_step


def writer(experiment: Any, run: pathlib.Path) -> SaveModel:
    """A function that writes `RUN/model.json` and the variables beside it.

    Args:
        experiment: A `train.Experiment`.
        run: The run folder.
    """
    data, forward = experiment.data, experiment.forward
    variables = as_step(experiment.step(experiment)).variables

    def save(state: TrainState, step: int, image: Mapping[str, Any]) -> None:
        facts = {
            "classes": list(data.classes),
            "image": dict(image),
            "task": experiment.task or getattr(experiment.model, "task", "semantic"),
            "multiple": getattr(data, "multiple", 32),
            "max_shapes": getattr(data, "max_shapes", 8),
            "step": step,
        }
        with saving(run / "model.json"):
            model_file.write(run, forward, jax.device_get(variables(state)), facts)

    return save
