"""The train step: pure, on one screen, and the parts that other steps are made of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from segjax import ops
from segjax.forward import Forward, loss_terms
from segjax.train import accumulate, ema
from segjax.train.state import TrainState
from segjax.typing import (
    Array,
    Augmentation,
    Batch,
    Field,
    Key,
    Objective,
    PyTree,
)

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
        """Runs `update`."""
        return self.update(state, batch)


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
            value_fn=_over_axis(value_fn, axis_name),
        )
        metrics = {"loss": loss, **{f"loss/{name}": x for name, x in terms.items()}}
        metrics["grad_norm"] = optax.tree.norm(grads)
        return new, metrics | learning_rates(new.opt_state)

    return train_step


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
    metrics = {"loss": loss, **{f"loss/{name}": x for name, x in terms.items()}}
    metrics["grad_norm"] = optax.tree.norm(grads)
    return new, metrics | learning_rates(new.opt_state)


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


def _over_axis(
    value_fn: Callable[[PyTree], Array], axis_name: str | None
) -> Callable[[PyTree], Array]:
    """The sum over a mapped axis of each device's loss, with the gradient of the sum.

    The gradient of `psum` itself would be each device's own, times their number: a line
    search would then take another way on each device, and wait for the others forever.
    """
    if axis_name is None:
        return lambda params: total(value_fn(params), None)

    @jax.custom_vjp
    def over_axis(params: PyTree) -> Array:
        return total(value_fn(params), axis_name)

    def forward(params: PyTree) -> tuple[Array, PyTree]:
        value, grads = jax.value_and_grad(value_fn)(params)
        return total(value, axis_name), jax.lax.psum(grads, axis_name)

    def backward(grads: PyTree, cotangent: Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: g * cotangent, grads),)

    over_axis.defvjp(forward, backward)
    return over_axis


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
