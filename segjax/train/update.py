"""The parts that steps are made of: batches, losses, keys, and applied gradients."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from segjax import ops
from segjax.forward import Forward, loss_terms
from segjax.train.state import TrainState
from segjax.typing import Array, Augmentation, Batch, Field, Key, Objective, PyTree


def make_loss(forward: Forward, objective: Objective) -> Callable:
    """Builds the loss of a computed batch: what a step differentiates.

    Args:
        forward: The model with its preprocessing.
        objective: `(outputs, batch) -> {name: [B]}`, perhaps with `step=`.

    Returns:
        `(params, model_state, batch, *, key, step, count=None) -> (loss, (terms,
        model_state))`: `batch` is prepared and augmented, `key` for dropout and the
        model's other streams; sums are divided by `count`, the examples of weight 1 in
        the batch unless given.
    """

    def loss_fn(params, model_state, batch, *, key, step=None, count=None):
        outputs, new_state = forward.apply(
            {"params": params, **model_state}, batch, train=True, rngs=streams(key)
        )
        weight = batch["weight"]  # [B], 0 for the padding of a short batch.
        count = jnp.maximum(jnp.sum(weight), 1) if count is None else count
        terms = loss_terms(objective, outputs, forward.truth(batch), step=step)
        if not terms:
            raise ValueError(
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
    """Builds `key -> stored batch -> computed batch`: preprocessed and augmented.

    Args:
        forward: The model with its preprocessing.
        augment: `(key, example) -> example`, or None.
        fields: How further entries of the batch move with the image.
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
    """Applies an augmentation to each example under a key of its own.

    Args:
        augment: `(key, example) -> example`, or None.
        key: One for the step; example i uses `fold_in(key, batch["index"][i])`.
        batch: What `Forward.prepare` returned.
        fields: How further entries move with the image.

    Returns:
        The batch, with the same names.
    """
    if augment is None:
        return dict(batch)
    packed = ops.pack_fields(batch, fields or {})
    kept = {k: packed.pop(k) for k in ("weight", "index")}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, kept["index"])
    return ops.unpack_fields(jax.vmap(augment)(keys, packed)) | kept


def apply_gradients(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    grads: PyTree,
    *,
    model_state: PyTree | None = None,
    value: Array | None = None,
    value_fn: Callable[[PyTree], Array] | None = None,
) -> TrainState:
    """The state after one update of the parameters, its step counted.

    Args:
        optimizer: Any optax transformation.
        state: The state before.
        grads: Of the whole batch, in the parameters' structure.
        model_state: Collections after the forward pass; as before unless given.
        value: The loss, for optimizers that want it.
        value_fn: `params -> loss`, for optimizers that search along a line.
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
    """One update on a computed batch: the gradient of a loss, given to the optimizer.

    For steps that run under jit, where the batch is whole.

    Args:
        loss_fn: Of `make_loss`, or like it.
        optimizer: Any optax transformation.
        state: The state before.
        batch: Preprocessed and augmented.
        key: For dropout and the model's other random streams.

    Returns:
        (the state after it, metrics as those of `make_train_step`).
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
    return new, logged(loss, terms, grads, new.opt_state)


def logged(
    loss: Array, terms: Mapping[str, Array], grads: PyTree, opt_state: PyTree
) -> dict[str, Array]:
    """What a step tells: `loss`, `loss/<term>`, `grad_norm`, and the learning rate."""
    metrics = {"loss": loss, **{f"loss/{name}": x for name, x in terms.items()}}
    metrics["grad_norm"] = optax.tree.norm(grads)
    return metrics | learning_rates(opt_state)


def learning_rates(opt_state: PyTree) -> dict[str, Array]:
    """The learning rate where `optax.inject_hyperparams` keeps it in the state.

    Returns:
        `learning_rate`; numbered `learning_rate/0`, ... of several; empty for none.
    """
    found = optax.tree.get_all_with_path(opt_state, "learning_rate")
    # A schedule's own state has the same name; it is no number.
    rates = [jnp.float32(x) for _, x in found if getattr(x, "shape", None) == ()]
    if len(rates) == 1:
        return {"learning_rate": rates[0]}
    return {f"learning_rate/{i}": rate for i, rate in enumerate(rates)}


def step_keys(state: TrainState, axis_name: str | None = None) -> tuple[Key, Key]:
    """The keys of a step: for augmentation, and for the model, which differs by device.

    Under jit there is one program, and dropout is drawn for the batch as a whole.
    """
    augment_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
    if axis_name:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    return augment_key, key


def streams(key: Key) -> dict[str, Key]:
    """The random streams of a model's call: dropout, and one for all other names.

    Linen draws a stream that is not given from `params`.
    """
    return {"dropout": key, "params": jax.random.fold_in(key, 2**31)}


def total(x: Array, axis_name: str | None) -> Array:
    """The sum of an array, in its own dtype, over a mapped axis too if there is one."""
    x = jnp.sum(x, dtype=x.dtype)
    return jax.lax.psum(x, axis_name) if axis_name else x


def over_axis(
    value_fn: Callable[[PyTree], Array], axis_name: str | None
) -> Callable[[PyTree], Array]:
    """The sum over a mapped axis of each device's loss, with the gradient of the sum.

    The gradient of `psum` itself would be each device's own, times their number: a line
    search would then take another way on each device, and wait for the others forever.
    """
    if axis_name is None:
        return lambda params: total(value_fn(params), None)

    @jax.custom_vjp
    def summed(params: PyTree) -> Array:
        return total(value_fn(params), axis_name)

    def forward(params: PyTree) -> tuple[Array, PyTree]:
        value, grads = jax.value_and_grad(value_fn)(params)
        return total(value, axis_name), jax.lax.psum(grads, axis_name)

    def backward(grads: PyTree, cotangent: Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: g * cotangent, grads),)

    summed.defvjp(forward, backward)
    return summed


def fields_of(experiment: Any) -> Mapping[str, Field]:
    """The further entries that an experiment's data declare; none unless they do."""
    return getattr(experiment.data, "fields", {})


def check_batch(batch: Batch) -> None:
    """Shapes and dtypes, once a compilation; nothing of it is left in the program."""
    chex.assert_rank([batch["image"], batch["weight"], batch["index"]], [4, 1, 1])
    chex.assert_equal_shape_prefix(list(batch.values()), 1)
    chex.assert_type(
        [batch["weight"], batch["index"]],
        [jnp.float32, jnp.int32],
    )
