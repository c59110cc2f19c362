"""The train step, pure and not compiled; gradient accumulation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax.errors import UserError
from segjax.forward import Forward
from segjax.train.state import TrainState, variables
from segjax.train.step_parts import (
    apply_gradients,
    check_batch,
    fields_of,
    global_sum,
    make_loss,
    make_prepare,
    step_keys,
    step_metrics,
    summed_over_axis,
)
from segjax.typing import Array, Augmentation, Batch, Field, Objective, PyTree

Update = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
"""`(state, batch) -> (state, metrics)`: pure; metrics are scalars, with `loss`."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A train step with the initialization of the state that it needs.

    Attributes:
        update: `(state, batch) -> (state, metrics)`. The metrics need a `loss`, a
            float32 scalar; the others are logged under their names.
        init: Turns the initial state of model and optimizer into that of the step,
            for example by adding `extra`. Pure; traced.
        variables: The variables of a state for evaluation, prediction and the saved
            model.
    """

    update: Update
    init: Callable[[TrainState], TrainState] = lambda state: state
    variables: Callable[[TrainState], PyTree] = variables

    def __call__(
        self, state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, Array]]:
        """Calls `update` and checks what it returns.

        Raises:
            ValueError: If it is not a pair of state and metrics, the metrics have no
                `loss`, or a metric is not a scalar.
        """
        made = self.update(state, batch)
        pair = isinstance(made, tuple) and len(made) == 2
        if not pair or not isinstance(made[1], Mapping):
            raise UserError(
                f"A step needs to return (state, metrics), got {type(made).__name__}."
            )
        shapes = {name: list(jnp.shape(x)) for name, x in made[1].items()}
        if shapes.get("loss") != []:
            got = shapes.get("loss", f"only {', '.join(shapes) or 'no metrics'}")
            raise UserError(f"A step's metrics need a scalar `loss`, got {got}.")
        for name, shape in shapes.items():
            if shape:
                raise UserError(
                    f"A step's metrics need to be scalars, got {name} of shape {shape}."
                )
        return made[0], dict(made[1])


def as_step(made: Step | Update) -> Step:
    """Wraps a plain update function as a `Step`; returns a `Step` unchanged."""
    return made if isinstance(made, Step) else Step(made)


def supervised_step(experiment: Any, *, axis_name: str | None = None) -> Step:
    """Builds the step that minimizes the objective: the default of `Experiment.step`.

    Args:
        experiment: A `train.Experiment`.
        axis_name: The mapped axis under `pmap_step`.

    Returns:
        `make_train_step` with the parts of the experiment.
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
    is not compiled here; `sharding.py` wraps it in jit or pmap. With `axis_name`,
    sums run over that axis too, so both give the same numbers.

    Args:
        forward: The model with its preprocessing.
        objective: `(outputs, batch) -> {name: [B]}`, perhaps with `step=`.
        optimizer: Any optax transformation, also one that takes `value`, `grad` and
            `value_fn`, such as `optax.lbfgs`.
        augment: Applied to each example on the device. Its key comes from (seed,
            step, index), so no device count, batch order or worker count can change
            what it does. `data.augment.compose` makes one of several.
        fields: How augmentation moves further entries of the batch.
        micro_batches: Micro-batches of an update; see `value_and_grad`.
        axis_name: The mapped axis under `pmap`.

    Returns:
        The step. Its metrics are `loss`, `loss/<term>`, `grad_norm` and, if the
        optimizer's state has it, `learning_rate`; float32 scalars.

    Raises:
        ValueError: If `micro_batches` is below 1; when traced, if the batch does not
            divide by it.
    """
    loss_fn = make_loss(forward, objective)
    prepare = make_prepare(forward, augment, fields=fields)
    gradient_fn = value_and_grad(loss_fn, micro_batches=micro_batches)

    def train_step(state: TrainState, batch: Batch):
        check_batch(batch)
        augment_key, key = step_keys(state, axis_name)
        count = jnp.maximum(global_sum(batch["weight"], axis_name), 1)
        options = {"count": count, "key": key, "step": state.step}
        grads, value, terms, model_state, value_fn = gradient_fn(
            state.params, state.model_state, batch, prepare(augment_key), **options
        )
        if axis_name:
            grads, terms = jax.lax.psum((grads, terms), axis_name)
            model_state = jax.lax.pmean(model_state, axis_name)
        loss = global_sum(value, axis_name)
        new = apply_gradients(
            optimizer,
            state,
            grads,
            model_state=model_state,
            value=loss,
            value_fn=summed_over_axis(value_fn, axis_name),
        )
        return new, step_metrics(loss, terms, grads, new.opt_state)

    return train_step


def skip_nonfinite(step: Step | Update) -> Step:
    """Wraps a step so that updates with a non-finite loss or gradient are skipped.

    The state then stays as it was, except for the step count; the metrics of the
    update stay non-finite, which the loop counts.

    Args:
        step: Any step. Besides `loss`, its metric `grad_norm` is checked, or the new
            parameters if it has none.
    """
    step = as_step(step)

    def guarded_step(state: TrainState, batch: Batch):
        new, metrics = step(state, batch)
        good = jnp.isfinite(metrics["loss"])
        norm = metrics.get("grad_norm", optax.tree.norm(new.params))
        good &= jnp.isfinite(norm)
        kept = {
            name: jax.tree.map(
                lambda a, b: jnp.where(good, a, b),
                getattr(new, name),
                getattr(state, name),
            )
            for name in ("params", "model_state", "opt_state", "extra")
        }
        return dataclasses.replace(new, **kept), metrics

    return dataclasses.replace(step, update=guarded_step)


@flax.struct.dataclass
class MicroBatchSums:
    """Sums over the micro-batches so far.

    Attributes:
        grads: The gradient of `value`, in the structure of the parameters.
        value: The loss.
        terms: Each term of the loss.
        model_state: Collections besides params, after the last micro-batch.
    """

    grads: PyTree
    value: Any
    terms: dict[str, Any]
    model_state: PyTree


def value_and_grad(loss_fn: Callable, *, micro_batches: int = 1) -> Callable:
    """Accumulates the gradient of a batch over m micro-batches, to save memory.

    Micro-batch j has the rows j, j + m, ... of the batch, on every device, so that no
    row moves between devices. Each sum is divided by the examples of weight 1 in the
    whole batch, and augmentation is keyed by the example: the gradient equals that of
    the whole batch up to rounding.

    Batch norm is the exception, as everywhere: it normalizes by the statistics of each
    micro-batch, over all devices, and updates its averages m times a step. The result
    still does not depend on the number of devices or processes. For statistics of the
    whole batch in less memory, use `models.remat` on the blocks of a model, or group
    norm. Dropout draws other masks than for the whole batch.

    On a CPU the loop is unrolled, so the program grows with m, because convolutions
    inside of a loop are slow there (docs/speed.md).

    Args:
        loss_fn: As `make_loss` returns it.
        micro_batches: m, at least 1. B / devices must divide by it.

    Returns:
        `(params, model_state, batch, prepare, *, count, key, step) -> (grads, value,
        terms, model_state, value_fn)`: `prepare` turns stored into computed batches;
        `value_fn` is `params -> value` on the same batch and keys.

    Raises:
        ValueError: If `micro_batches` is below 1, and, when traced, if B does not
            divide by it.
    """
    if micro_batches < 1:
        raise UserError(f"micro_batches must be at least 1, got {micro_batches}.")
    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def whole(params, model_state, batch, prepare, *, count, key, step):
        batch = prepare(batch)
        options = {"count": count, "key": key, "step": step}
        (value, (terms, new_state)), grads = gradient(
            params, model_state, batch, **options
        )

        def value_fn(params: PyTree):
            return loss_fn(params, model_state, batch, **options)[0]

        return grads, value, terms, new_state, value_fn

    def in_parts(params, model_state, batch, prepare, *, count, key, step):
        parts = _micro_batches(batch, micro_batches)

        def options(number):
            key_of_part = jax.random.fold_in(key, number)
            return {"count": count, "key": key_of_part, "step": step}

        def of_part(model_state: PyTree, part: Batch, number) -> MicroBatchSums:
            (value, (terms, new_state)), grads = gradient(
                params, model_state, prepare(part), **options(number)
            )
            return MicroBatchSums(grads, value, terms, new_state)

        done = _accumulate(of_part, model_state, parts, micro_batches)

        def value_fn(params: PyTree):
            def of_one(number, part):
                loss = loss_fn(params, model_state, prepare(part), **options(number))
                return loss[0]

            return jnp.sum(jax.lax.map(lambda x: of_one(*x), _numbered(parts)))

        return done.grads, done.value, done.terms, done.model_state, value_fn

    return whole if micro_batches == 1 else in_parts


def _numbered(parts: PyTree) -> tuple[Any, PyTree]:
    return jnp.arange(len(jax.tree.leaves(parts)[0])), parts


def _micro_batches(batch: Batch, count: int) -> PyTree:
    """[B, ...] leaves to [count, B / count, ...]."""
    rows = len(batch["image"])
    if rows % count:
        raise UserError(
            f"The batch must divide into {count} micro-batches, got {rows} images. "
            f"Use --batch-size {-(-rows // count) * count}."
        )
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(rows // count, count, *x.shape[1:]), 1, 0),
        dict(batch),
    )


def _accumulate(
    of_part: Callable[..., MicroBatchSums],
    model_state: PyTree,
    parts: PyTree,
    count: int,
) -> MicroBatchSums:
    """Sums over micro-batches; each starts with the model state of the last one."""

    def add(sums: MicroBatchSums, numbered) -> tuple[MicroBatchSums, None]:
        number, part = numbered
        new = of_part(sums.model_state, part, number)
        old = sums.replace(model_state=None)  # pyright: ignore
        added = jax.tree.map(jnp.add, old, new.replace(model_state=None))  # pyright: ignore
        return added.replace(model_state=new.model_state), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(of_part, model_state, first, 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums = zeros.replace(model_state=model_state)
    if jax.default_backend() != "cpu":
        return jax.lax.scan(add, sums, _numbered(parts))[0]
    for number in range(count):
        part = jax.tree.map(lambda x, number=number: x[number], parts)
        sums, _ = add(sums, (number, _ordered_after(sums, part)))
    return sums


def _ordered_after(sums: MicroBatchSums, part: PyTree) -> PyTree:
    """Makes a micro-batch depend on the sums, so that XLA computes it after them.

    Otherwise XLA's CPU compiler may compute all micro-batches at once and hold all of
    their activations: it drops `optimization_barrier` before it assigns memory. The
    added value is always 0, which the compiler cannot know.
    """
    probe = sum(jnp.ravel(x)[0] for x in jax.tree.leaves(sums.grads) if x.size)
    never = jnp.asarray(probe == jnp.finfo(jnp.float32).max)
    return part | {"image": part["image"] + never.astype(part["image"].dtype)}
