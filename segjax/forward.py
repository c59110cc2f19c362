"""From a stored batch to a network's outputs and loss terms, the same way everywhere.

Training, evaluation, prediction, inspection, replay and export all go through
`Forward`: what preprocesses images and chooses the network's arguments is stated once.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from segjax import ops
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
    """What a semantic model is given of a batch: `image`."""
    return {"image": batch["image"]}


@dataclasses.dataclass(frozen=True)
class Forward:
    """A network with what goes before it.

    Attributes:
        model: A linen module, or anything else with its `apply` (and `init`). Models
            whose logits are smaller than the image say so by an attribute `margin`:
            the pixels that they trim on each side.
        preprocess: Stored pixels to float32, on the device.
        model_inputs: What the model is given of a computed batch, by name.
    """

    model: Any
    preprocess: Preprocess = ops.UnitRange()
    model_inputs: ModelInputs = image_only

    @property
    def margin(self) -> int:
        """Pixels that the model trims on each side of the image; 0 for most."""
        return getattr(self.model, "margin", 0)

    def prepare(self, batch: Batch) -> dict[str, Any]:
        """Computes with a stored batch what all else computes with.

        Args:
            batch: With `image` as stored, and perhaps `label`; see `segjax.typing`.
                A batch that has `valid` already keeps it, and its label.

        Returns:
            The batch with `image` preprocessed, `label` int32 and `valid` bool.

        Raises:
            ValueError: If `preprocess` returns other than a float image of the same
                batch, height and width, or the label's dtype has no ignored id.
        """
        stored = jnp.asarray(batch["image"])
        image = self.preprocess(stored)
        same = image.ndim == stored.ndim and image.shape[:-1] == stored.shape[:-1]
        if not same or not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(
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
        """Runs the network on a computed batch, perhaps augmented.

        Args:
            variables: Parameters under `params`, and other collections.
            batch: What `prepare` returned.
            train: In training all collections but `params` may change.
            rngs: Keys by stream; a stream that has none draws from `params`.

        Returns:
            (outputs, collections besides `params` after it).

        Raises:
            ValueError: If the logits have neither the image's size nor the image's
                without the model's margin.
        """
        state = {k: v for k, v in variables.items() if k != "params"}
        arguments = self.model_inputs(batch)
        if train:
            outputs, state = self.model.apply(
                variables, **arguments, train=True, rngs=rngs, mutable=list(state)
            )
        else:
            outputs = self.model.apply(variables, **arguments, train=False, rngs=rngs)
        self._check_size(outputs, batch["image"])
        return outputs, state

    def __call__(
        self, variables: PyTree, batch: Batch, *, train: bool = False, rngs: Any = None
    ) -> tuple[Any, PyTree]:
        """`prepare`, then `apply`: from a stored batch to (outputs, collections)."""
        return self.apply(variables, self.prepare(batch), train=train, rngs=rngs)

    def truth(self, batch: Batch) -> dict[str, Any]:
        """A computed batch as the outputs see it: maps without the model's margin.

        Args:
            batch: What `prepare` returned.

        Returns:
            The batch; where the model has a margin, image, label, valid and fields are
            cut to their centers.
        """
        if not self.margin or "label" not in batch:
            return dict(batch)
        size = batch["label"].shape[1:3]
        inner = [side - 2 * self.margin for side in size]

        def cut(x: Array) -> Array:
            is_map = jnp.ndim(x) >= 3 and x.shape[1:3] == size
            return ops.center_crop(x, inner) if is_map else x

        return {name: cut(x) for name, x in batch.items()}

    def _check_size(self, outputs: Any, image: Array) -> None:
        if not isinstance(outputs, jax.Array) or outputs.ndim != 4:
            return
        need = tuple(side - 2 * self.margin for side in image.shape[1:3])
        if outputs.shape[1:3] == need:
            return
        got = "x".join(map(str, outputs.shape[1:3]))
        trims = f" less its margin of {self.margin} on each side" if self.margin else ""
        raise ValueError(
            f"{type(self.model).__name__} needs to return logits of "
            f"{need[0]}x{need[1]} pixels, the image's size{trims}, got {got}. Resize "
            f"them (ops.resize_bilinear), or declare the pixels that the model trims "
            f"on each side as its attribute `margin`."
        )


def make_forward(
    model: Any,
    *,
    preprocess: Preprocess | None = None,
    model_inputs: ModelInputs | None = None,
) -> Forward:
    """A `Forward` of a model; images in [0, 1] and nothing else unless given."""
    return Forward(
        model,
        ops.UnitRange() if preprocess is None else preprocess,
        image_only if model_inputs is None else model_inputs,
    )


def loss_terms(
    objective: Objective, outputs: Any, batch: Batch, *, step: Array | int | None = None
) -> dict[str, PerExample]:
    """Calls an objective, and checks what it returns.

    Args:
        objective: `(outputs, batch) -> {name: [B]}`; one with a keyword `step` gets it.
        outputs: Of the model.
        batch: What `Forward.truth` returned.
        step: Updates done, for objectives that change while training.

    Returns:
        The terms, float [B] each.

    Raises:
        ValueError: If a term has another shape, by its name.
    """
    takes_step = _takes_step(objective)
    terms = objective(outputs, batch, step=step) if takes_step else objective(outputs, batch)
    if not isinstance(terms, Mapping):
        raise ValueError(
            f"An objective needs to return {{name: [B]}}, got {type(terms).__name__}. "
            f"Try losses.semantic(ce=(1.0, losses.cross_entropy))."
        )
    rows = jnp.shape(batch["weight"])[0]
    for name, value in terms.items():
        shape = list(jnp.shape(value))
        if shape != [rows]:
            raise ValueError(
                f'term "{name}": needed shape [{rows}], one value an example, got '
                f"{shape}; reduce over pixels, not over examples."
            )
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise ValueError(
                f'term "{name}": needed floats, got {jnp.result_type(value)}.'
            )
    return dict(terms)


def _takes_step(objective: Callable) -> bool:
    try:
        return "step" in inspect.signature(objective).parameters
    except (TypeError, ValueError):  # Of some compiled callables.
        return False
