"""Loads a trained model from its folder: `segjax.load`."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from segjax import model_file
from segjax.errors import UserError
from segjax.forward import Forward
from segjax.inference.model import Build, Model
from segjax.inference.predictor import Predictor
from segjax.typing import PyTree

SCRIPT = "experiment.py"


class NeedsCodeError(UserError):
    """A model needs code from its run folder, which must not be executed."""


def load(folder: str | os.PathLike, *, trust: bool = False, build: Build) -> Model:
    """Loads a trained model; see `segjax.load`, which passes `build`.

    Args:
        folder: A run folder, or another folder written by `model_file.write`.
        trust: See `segjax.load`.
        build: Builds the folder's experiment. Called by `Model.experiment`, and here if
            the model needs code and `trust` is True.
    """
    folder = pathlib.Path(folder)
    description, variables = model_file.read(folder)
    forward = _forward(folder, description, trust=trust, build=build)
    if description["needs_code"] is None:
        _check_fit(folder, forward, variables, description)
    multilabel = description["task"] == "multilabel"
    predictor = Predictor(
        forward,
        variables,
        multiple=description["multiple"],
        max_shapes=description["max_shapes"],
        activation=jax.nn.sigmoid if multilabel else jax.nn.softmax,
    )
    return Model(
        folder=folder,
        forward=forward,
        variables=variables,
        description=description,
        _predictor=predictor,
        _build=build,
    )


def _check_fit(
    folder: pathlib.Path, forward: Forward, variables: PyTree, about: Mapping[str, Any]
) -> None:
    """Raises a ValueError if the variables do not fit the network, by shapes only."""
    side, kind = about["multiple"] + 2 * forward.margin, about["image"]
    image = np.broadcast_to(
        np.zeros((), kind["dtype"]), (1, side, side, kind["channels"])
    )
    size = np.full((1, 2), about["multiple"], np.int32)
    try:
        jax.eval_shape(forward, variables, {"image": image, "size": size})
    except Exception as error:  # From Flax, JAX, or invalid attributes.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{folder / model_file.MODEL_JSON} is damaged: its network does not accept "
            f"its variables and images ({reason}). Copy it again, or train again."
        ) from error


def _forward(
    folder: pathlib.Path, description: Mapping[str, Any], *, trust: bool, build: Build
) -> Forward:
    why = description["needs_code"]
    if why is not None and not trust:
        script = folder / SCRIPT
        raise NeedsCodeError(
            f"{folder} holds a model that needs custom code: {why}. Loading it would "
            f"execute {script}. If you trust that script, pass --trust, or trust=True "
            f"to segjax.load."
        )
    if why is not None:
        return build(folder).forward
    try:
        return model_file.build_forward(description)
    except ValueError as error:
        raise UserError(f"{folder / model_file.MODEL_JSON}: {error}") from error
