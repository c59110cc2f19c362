"""Building blocks of train steps: loss, preparation, keys, gradient update."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from segjax import ops
from segjax.errors import UserError
from segjax.forward import Forward, loss_terms
from segjax.train.state import TrainState
from segjax.typing import (
    EXAMPLES,
    Array,
    Augmentation,
    Batch,
    Field,
    Key,
    Objective,
    PyTree,
)


def make_loss(forward: Forward, objective: Objective) -> Callable:
    """Builds the loss of a computed batch, which a step differentiates.

    Args:
        forward: The model with its preprocessing.
        objective: `(outputs, batch) -> {name: [B]}`, perhaps with `step=`.

    Returns:
        `(params, model_state, batch, *, key, step, count=None) -> (loss, (terms,
        model_state))`: `batch` is prepared and augmented, `key` seeds dropout and the
        model's other random streams; sums are divided by `count`, by default the
        number of examples of weight 1 in the batch.
    """

    def loss_fn(params, model_state, batch, *, key, step=None, count=None):
        outputs, new_state = forward.apply(
            {"params": params, **model_state}, batch, train=True, rngs=rng_streams(key)
        )
        weight = batch["weight"]  # [B], 0 for the padding of a short batch.
        count = jnp.maximum(jnp.sum(weight), 1) if count is None else count
        terms = loss_terms(objective, outputs, forward.truth(batch), step=step)
        if not terms:
            raise UserError(
                "An objective needs at least one term in training, got none. Try "
                "losses.semantic(ce=(1.0, losses.cross_entropy))."
            )
        means = {k: jnp.sum(v * weight) / count for k, v in terms.items()}
        return sum(means.values()), (means, new_state)

    return loss_fn


def make_prepare(
    forward: Forward,
    augment: Augmentation | None = None,
    *,
    fields: Mapping[str, Field] | None = None,
) -> Callable[[Key], Callable[[Batch], dict[str, Any]]]:
    """Builds `key -> stored batch -> computed batch`, preprocessed and augmented.

    Args:
        forward: The model with its preprocessing.
        augment: `(key, example) -> example`, or None.
        fields: How augmentation moves further entries of the batch.
    """

    def with_key(key: Key) -> Callable[[Batch], dict[str, Any]]:
        return lambda batch: augmented(
            augment, key, forward.prepare(batch), fields=fields
        )

    return with_key


def augmented(
    augment: Augmentation | None,
    key: Key,
    batch: Batch,
    *,
    fields: Mapping[str, Field] | None = None,
) -> dict[str, Any]:
    """Applies an augmentation to each example, with its own key.

    Args:
        augment: `(key, example) -> example`, or None.
        key: The step's key; example i uses `fold_in(key, batch["index"][i])`.
        batch: The result of `Forward.prepare`.
        fields: How augmentation moves further entries of the batch.

    Returns:
        A batch with the same entries.
    """
    if augment is None:
        return dict(batch)
    packed = ops.pack_fields(batch, fields or {})
    kept = {k: packed.pop(k) for k in ("weight", "index")}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, kept["index"])
    over_batch = jax.vmap(augment, axis_name=EXAMPLES)
    return ops.unpack_fields(over_batch(keys, packed)) | kept


def apply_gradients(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    grads: PyTree,
    *,
    model_state: PyTree | None = None,
    value: Array | None = None,
    value_fn: Callable[[PyTree], Array] | None = None,
) -> TrainState:
    """Applies one update to the parameters and increments the step.

    Args:
        optimizer: Any optax transformation.
        state: The state before.
        grads: The gradient of the whole batch, in the structure of the parameters.
        model_state: Collections after the forward pass; None leaves them unchanged.
        value: The loss, for optimizers that use it.
        value_fn: `params -> loss`, for optimizers with a line search.
    """
    update = optax.with_extra_args_support(optimizer).update
    updates, opt_state = update(
        grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn
    )
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=state.model_state if model_state is None else model_state,
        opt_state=opt_state,
    )


def minimize(
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    *,
    key: Key,
) -> tuple[TrainState, dict[str, Array]]:
    """Computes the gradient of a loss on a computed batch and applies one update.

    For steps under jit, not for mapped axes.

    Args:
        loss_fn: As `make_loss` returns it.
        optimizer: Any optax transformation.
        state: The state before.
        batch: Preprocessed and augmented.
        key: For dropout and the model's other random streams.

    Returns:
        (the new state, metrics as those of `make_train_step`).
    """
    options = {"key": key, "step": state.step}
    (loss, (terms, model_state)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params, state.model_state, batch, **options
    )
    new = apply_gradients(
        optimizer,
        state,
        grads,
        model_state=model_state,
        value=loss,
        value_fn=lambda params: loss_fn(params, state.model_state, batch, **options)[0],
    )
    return new, step_metrics(loss, terms, grads, new.opt_state)


def step_metrics(
    loss: Array, terms: Mapping[str, Array], grads: PyTree, opt_state: PyTree
) -> dict[str, Array]:
    """Returns `loss`, `loss/<term>`, `grad_norm` and the learning rate."""
    metrics = {"loss": loss, **{f"loss/{name}": x for name, x in terms.items()}}
    metrics["grad_norm"] = optax.tree.norm(grads)
    return metrics | learning_rates(opt_state)


def learning_rates(opt_state: PyTree) -> dict[str, Array]:
    """Returns the learning rates that `optax.inject_hyperparams` keeps in the state.

    Returns:
        `learning_rate`; `learning_rate/0`, ... if there are several; empty for none.
    """
    found = optax.tree.get_all_with_path(opt_state, "learning_rate")
    # The state of a schedule has the same name, but is not a scalar.
    rates = [jnp.float32(x) for _, x in found if getattr(x, "shape", None) == ()]
    if len(rates) == 1:
        return {"learning_rate": rates[0]}
    return {f"learning_rate/{i}": rate for i, rate in enumerate(rates)}


def step_keys(state: TrainState, axis_name: str | None = None) -> tuple[Key, Key]:
    """Returns the step's keys: one for augmentation, one for the model.

    On a mapped axis the model's key differs by device; under jit dropout is drawn for
    the whole batch at once.
    """
    augment_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
    if axis_name:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    return augment_key, key


def rng_streams(key: Key) -> dict[str, Key]:
    """Returns the random streams of a model: dropout, and one for all other names.

    Linen derives a missing stream from `params`.
    """
    return {"dropout": key, "params": jax.random.fold_in(key, 2**31)}


def global_sum(x: Array, axis_name: str | None) -> Array:
    """Sums an array in its own dtype, also over a mapped axis if there is one."""
    x = jnp.sum(x, dtype=x.dtype)
    return jax.lax.psum(x, axis_name) if axis_name else x


def summed_over_axis(
    value_fn: Callable[[PyTree], Array], axis_name: str | None
) -> Callable[[PyTree], Array]:
    """Sums a loss over the devices of a mapped axis, with the gradient of the sum.

    The gradient of `psum` would be each device's own times the number of devices. A
    line search would then decide differently on each device, and deadlock.
    """
    if axis_name is None:
        return lambda params: global_sum(value_fn(params), None)

    @jax.custom_vjp
    def summed(params: PyTree) -> Array:
        return global_sum(value_fn(params), axis_name)

    def forward(params: PyTree) -> tuple[Array, PyTree]:
        value, grads = jax.value_and_grad(value_fn)(params)
        return global_sum(value, axis_name), jax.lax.psum(grads, axis_name)

    def backward(grads: PyTree, cotangent: Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: g * cotangent, grads),)

    summed.defvjp(forward, backward)
    return summed


def fields_of(experiment: Any) -> Mapping[str, Field]:
    """Returns the further batch entries that an experiment's data declare, if any."""
    return getattr(experiment.data, "fields", {})


def check_batch(batch: Batch) -> None:
    """Checks shapes and dtypes while the step is traced."""
    chex.assert_rank([batch["image"], batch["weight"], batch["index"]], [4, 1, 1])
    chex.assert_equal_shape_prefix(list(batch.values()), 1)
    chex.assert_type(
        [batch["weight"], batch["index"]],
        [jnp.float32, jnp.int32],
    )
