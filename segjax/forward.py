"""The forward pass, from a stored batch to a network's outputs and loss terms.

Training, evaluation, prediction, inspection, replay and export all use `Forward`, so
preprocessing and the network's arguments are defined once.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import ops
from segjax.errors import UserError
from segjax.typing import (
    Array,
    Batch,
    ModelInputs,
    Objective,
    PerExample,
    Preprocess,
    PyTree,
)


def image_only(batch: Batch) -> dict[str, Any]:
    """Selects the argument of a semantic model from a batch: `image`."""
    return {"image": batch["image"]}


@dataclasses.dataclass(frozen=True)
class Forward:
    """A network with its preprocessing.

    Attributes:
        model: A linen module, or any object with its `apply` (and `init`). Models whose
            logits are smaller than the image declare an attribute `margin`: the pixels
            that they crop on each side.
        preprocess: Converts stored pixels to float32, on the device.
        model_inputs: Selects the model's keyword arguments from a computed batch.
    """

    model: Any
    preprocess: Preprocess = ops.unit_range
    model_inputs: ModelInputs = image_only

    @property
    def margin(self) -> int:
        """Pixels that the model crops on each side of the image; 0 for most."""
        return getattr(self.model, "margin", 0)

    def prepare(self, batch: Batch) -> dict[str, Any]:
        """Converts a stored batch to a computed one.

        Args:
            batch: With `image` as stored, and optionally `label`; see `segjax.typing`.
                If it has `valid` already, `valid` and `label` are unchanged.

        Returns:
            The batch with `image` preprocessed, `label` int32 and `valid` bool.

        Raises:
            ValueError: If `preprocess` does not return a float image of the same batch
                size, height and width, or the label's dtype has no ignore index.
        """
        stored = jnp.asarray(batch["image"])
        image = self.preprocess(stored)
        same = image.ndim == stored.ndim and image.shape[:-1] == stored.shape[:-1]
        if not same or not jnp.issubdtype(image.dtype, jnp.floating):
            raise UserError(
                f"preprocess needs to return floats of shape "
                f"{[*stored.shape[:-1], '*']}, got {image.dtype}{list(image.shape)} "
                f"for {stored.dtype}{list(stored.shape)}."
            )
        made = dict(batch) | {"image": image}
        if "label" in batch and "valid" not in batch:
            made["label"], made["valid"] = ops.split_ignored(batch["label"])
        return made

    def apply(
        self, variables: PyTree, batch: Batch, *, train: bool, rngs: Any = None
    ) -> tuple[Any, PyTree]:
        """Runs the network on a computed (and possibly augmented) batch.

        Args:
            variables: Parameters under `params`, and other collections.
            batch: Returned by `prepare`.
            train: Whether to train: all collections except `params` are then mutable.
            rngs: Keys by stream; a stream without a key uses that of `params`.

        Returns:
            (outputs, updated collections without `params`).

        Raises:
            ValueError: If the logits do not have the image's size less the model's
                margin.
        """
        state = {k: v for k, v in variables.items() if k != "params"}
        arguments = self.model_inputs(batch)
        if train:
            outputs, state = self.model.apply(
                variables, **arguments, train=True, rngs=rngs, mutable=list(state)
            )
        else:
            outputs = self.infer(variables, arguments, rngs)
        self._check_size(outputs, batch["image"])
        return outputs, state

    def infer(self, variables: PyTree, inputs: dict[str, Any], rngs: Any = None) -> Any:
        """Returns the model's outputs outside of training for its keyword arguments."""
        return self.model.apply(variables, **inputs, train=False, rngs=rngs)

    def __call__(
        self, variables: PyTree, batch: Batch, *, train: bool = False, rngs: Any = None
    ) -> tuple[Any, PyTree]:
        """Runs `prepare` and `apply`: from a stored batch to (outputs, collections)."""
        return self.apply(variables, self.prepare(batch), train=train, rngs=rngs)

    def truth(self, batch: Batch) -> dict[str, Any]:
        """Crops a computed batch to the outputs' size.

        Args:
            batch: Returned by `prepare`.

        Returns:
            The batch; if the model has a margin, image, label, valid and map fields are
            center-cropped.
        """
        if not self.margin or "label" not in batch:
            return dict(batch)
        size = batch["label"].shape[1:3]
        inner = [side - 2 * self.margin for side in size]

        def cut(x: Array) -> Array:
            is_map = jnp.ndim(x) >= 3 and x.shape[1:3] == size
            return ops.center_crop(x, inner) if is_map else x

        return {name: cut(x) for name, x in batch.items()}

    def host_truth(self, batch: Batch) -> dict[str, Any]:
        """Works like `truth`, but on a stored batch in NumPy, for metrics on the host.

        Args:
            batch: On the host. Its image is not preprocessed.

        Returns:
            The batch with `label` int32 and `valid` bool, both without the margin.
        """
        made = {k: np.asarray(v) for k, v in batch.items()}
        if "label" in made and "valid" not in made:
            label = made["label"]
            made["valid"] = label != ops.ignore_index(label.dtype)
            made["label"] = np.where(made["valid"], label, 0).astype(np.int32)
        return self.truth(made)

    def _check_size(self, outputs: Any, image: Array) -> None:
        if not isinstance(outputs, jax.Array) or outputs.ndim != 4:
            return
        need = tuple(side - 2 * self.margin for side in image.shape[1:3])
        if outputs.shape[1:3] == need:
            return
        got = "x".join(map(str, outputs.shape[1:3]))
        crops = f" less its margin of {self.margin} on each side" if self.margin else ""
        raise UserError(
            f"{type(self.model).__name__} needs to return logits of "
            f"{need[0]}x{need[1]} pixels, the image's size{crops}, got {got}. Resize "
            f"them (ops.resize_bilinear), or declare the pixels that the model crops "
            f"on each side as its attribute `margin`."
        )


def make_forward(
    model: Any,
    *,
    preprocess: Preprocess | None = None,
    model_inputs: ModelInputs | None = None,
) -> Forward:
    """Makes a `Forward`; by default, images in [0, 1] are the only model input."""
    return Forward(
        model,
        ops.unit_range if preprocess is None else preprocess,
        image_only if model_inputs is None else model_inputs,
    )


def loss_terms(
    objective: Objective, outputs: Any, batch: Batch, *, step: Array | int | None = None
) -> dict[str, PerExample]:
    """Calls an objective and checks its result.

    Args:
        objective: `(outputs, batch) -> {name: [B]}`, with an optional keyword `step`.
        outputs: The model's outputs.
        batch: Returned by `Forward.truth`.
        step: Number of updates done, for objectives that depend on it.

    Returns:
        The loss terms, float [B] each.

    Raises:
        ValueError: If a term has another shape or dtype; the message names it.
    """
    takes_step = _takes_step(objective)
    terms = (
        objective(outputs, batch, step=step)
        if takes_step
        else objective(outputs, batch)
    )
    if not isinstance(terms, Mapping):
        raise UserError(
            f"An objective needs to return {{name: [B]}}, got {type(terms).__name__}. "
            f"Try losses.semantic(ce=(1.0, losses.cross_entropy))."
        )
    rows = jnp.shape(batch["weight"])[0]
    for name, value in terms.items():
        shape = list(jnp.shape(value))
        if shape != [rows]:
            raise UserError(
                f'term "{name}": needed shape [{rows}], one value per example, got '
                f"{shape}; reduce over pixels, not over examples."
            )
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise UserError(
                f'term "{name}": needed floats, got {jnp.result_type(value)}.'
            )
    return dict(terms)


def _takes_step(objective: Callable) -> bool:
    try:
        return "step" in inspect.signature(objective).parameters
    except (TypeError, ValueError):  # Raised for some compiled callables.
        return False
