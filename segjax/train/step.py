"""The train step: pure, on one screen."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from segjax.forward import Forward
from segjax.train import accumulate, ema
from segjax.train.state import TrainState
from segjax.train.update import (
    apply_gradients,
    check_batch,
    fields_of,
    logged,
    make_loss,
    make_prepare,
    over_axis,
    step_keys,
    total,
)
from segjax.typing import Array, Augmentation, Batch, Field, Objective, PyTree

Update = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
"""`(state, batch) -> (state, metrics)`: pure; metrics are scalars, with `loss`."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One update, and how the state that it needs begins.

    Attributes:
        update: `(state, batch) -> (state, metrics)`. The loop asks for `loss` among
            the metrics, a float32 scalar; the others are logged under their names.
        init: From the state that the model and the optimizer begin with to the one
            that the step needs, such as one with `extra`. Pure; traced.
        variables: What evaluation, prediction and the saved model use of a state.
    """

    update: Update
    init: Callable[[TrainState], TrainState] = lambda state: state
    variables: Callable[[TrainState], PyTree] = ema.variables

    def __call__(
        self, state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, Array]]:
        """Runs `update`, and checks what it returned.

        Raises:
            ValueError: If that is no pair of a state and metrics, the metrics have no
                `loss`, or one is no scalar.
        """
        made = self.update(state, batch)
        pair = isinstance(made, tuple) and len(made) == 2
        if not pair or not isinstance(made[1], Mapping):
            raise ValueError(
                f"A step needs to return (state, metrics), got {type(made).__name__}."
            )
        shapes = {name: list(jnp.shape(x)) for name, x in made[1].items()}
        if shapes.get("loss") != []:
            got = shapes.get("loss", f"only {', '.join(shapes) or 'no metrics'}")
            raise ValueError(f"A step's metrics need a scalar `loss`, got {got}.")
        for name, shape in shapes.items():
            if shape:
                raise ValueError(
                    f"A step's metrics need to be scalars, got {name} of shape {shape}."
                )
        return made[0], dict(made[1])


def as_step(made: Step | Update) -> Step:
    """A step as it is; a plain function as a step whose state needs nothing more."""
    return made if isinstance(made, Step) else Step(made)


def supervised_step(experiment: Any, *, axis_name: str | None = None) -> Step:
    """The step that minimizes the objective: the default of `Experiment.step`.

    Args:
        experiment: A `train.Experiment`.
        axis_name: The mapped axis under `pmap_step`.

    Returns:
        `make_train_step` of the experiment's parts.
    """
    return Step(
        make_train_step(
            experiment.forward,
            experiment.objective,
            experiment.optimizer,
            experiment.augment,
            fields=fields_of(experiment),
            micro_batches=experiment.config.accumulate,
            axis_name=axis_name,
        )
    )


def make_train_step(
    forward: Forward,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augment: Augmentation | None = None,
    *,
    fields: Mapping[str, Field] | None = None,
    micro_batches: int = 1,
    axis_name: str | None = None,
) -> Update:
    """Builds `(state, batch) -> (state, metrics)`; plain SGD is W = W - lr * dL/dW.

    L is the objective's mean over examples of weight 1 in the global batch. The step
    is not compiled here; `parallel.py` wraps it in jit or pmap. With `axis_name`,
    sums run over that axis too, so both give the same numbers.

    Args:
        forward: The model with its preprocessing.
        objective: `(outputs, batch) -> {name: [B]}`, perhaps with `step=`.
        optimizer: Any optax transformation; those that want `value`, `grad` and
            `value_fn`, such as `optax.lbfgs`, get them.
        augment: Applied to each example on the device. Its key comes from (seed,
            step, index), so no device count, batch order or worker count can change
            what it does. `data.augment.compose` makes one of several.
        fields: How further entries of the batch move with the image.
        micro_batches: In how many parts the gradient is computed; see
            `accumulate.value_and_grad`.
        axis_name: The mapped axis under `pmap`.

    Returns:
        The step. Its metrics are `loss`, `loss/<term>` and `grad_norm`, and
        `learning_rate` where the optimizer's state tells it, float32 scalars.

    Raises:
        ValueError: If `micro_batches` is below 1; when traced, if the batch does not
            divide by it.
    """
    loss_fn = make_loss(forward, objective)
    prepare = make_prepare(forward, augment, fields=fields)
    value_and_grad = accumulate.value_and_grad(loss_fn, micro_batches=micro_batches)

    def train_step(state: TrainState, batch: Batch):
        check_batch(batch)
        augment_key, key = step_keys(state, axis_name)
        count = jnp.maximum(total(batch["weight"], axis_name), 1)
        options = {"count": count, "key": key, "step": state.step}
        grads, value, terms, model_state, value_fn = value_and_grad(
            state.params, state.model_state, batch, prepare(augment_key), **options
        )
        if axis_name:
            grads, terms = jax.lax.psum((grads, terms), axis_name)
            model_state = jax.lax.pmean(model_state, axis_name)
        loss = total(value, axis_name)
        new = apply_gradients(
            optimizer,
            state,
            grads,
            model_state=model_state,
            value=loss,
            value_fn=over_axis(value_fn, axis_name),
        )
        return new, logged(loss, terms, grads, new.opt_state)

    return train_step


def skip_nonfinite(step: Step | Update) -> Step:
    """A step that leaves an update out where its loss or gradient is not finite.

    The state then stays as it was, but for its step count. The metrics tell: they are
    not finite.

    Args:
        step: Any step. Besides `loss`, `grad_norm` is looked at where it is told, else
            the new parameters.
    """
    step = as_step(step)

    def guarded_step(state: TrainState, batch: Batch):
        new, metrics = step(state, batch)
        good = jnp.isfinite(metrics["loss"])
        # Their norm is finite if they are, short of overflow.
        size = metrics.get("grad_norm", optax.tree.norm(new.params))
        good &= jnp.isfinite(size)
        kept = {
            part: jax.tree.map(
                lambda a, b: jnp.where(good, a, b),
                getattr(new, part),
                getattr(state, part),
            )
            for part in ("params", "model_state", "opt_state", "extra")
        }
        return dataclasses.replace(new, **kept), metrics

    return dataclasses.replace(step, update=guarded_step)
