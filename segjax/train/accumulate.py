"""Gradient accumulation: a large batch in the memory of a small one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from segjax.train.state import TrainState
from segjax.train.step import (
    Gradient,
    Inputs,
    Step,
    augmented,
    check_batch,
    finish,
    image_only,
    make_gradient,
    step_keys,
    total,
)
from segjax.typing import Augmentation, Batch, Objective, PyTree


def make_accumulating_step(
    apply: Callable,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augment: Augmentation | None = None,
    *,
    micro_batches: int,
    inputs: Inputs = image_only,
    axis_name: str | None = None,
) -> Step:
    """Builds a step like `make_train_step`'s, with activations of B / m images only.

    Micro-batch j is the rows j, j + m, ... of the batch, on every device, so that
    none has to move. Each one's sum is divided by the examples of weight 1 in the
    whole batch, however they lie in the micro-batches, and augmentation is keyed by
    the example: the gradient is that of the whole batch, to rounding.

    Batch norm is the exception, here as elsewhere: it normalises by the statistics of
    each micro-batch, over all devices, and its averages are updated m times a step.
    The result still does not depend on the number of devices or processes. Statistics
    of the whole batch would take another pass over all micro-batches for each
    normalised layer; to have them in less memory, recompute instead, with
    `models.remat` on the blocks of a model, or use group norm.

    Dropout draws other masks than the whole batch would.

    Args:
        apply: `model.apply` of a linen module.
        objective: `(outputs, batch) -> {name: [B]}`.
        optimizer: An optax transformation.
        augment: `(key, example) -> example`, or None.
        micro_batches: m, at least 1. B / devices must divide by it.
        inputs: What the model is given of a batch, by name.
        axis_name: The mapped axis under `pmap`.

    Returns:
        The step. On a CPU the micro-batches are unrolled, so that the program grows
        with m: convolutions inside a loop are 5 to 30 times slower there.

    Raises:
        ValueError: If `micro_batches` is below 1, and, when traced, if B does not
            divide by it.
    """
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}.")
    gradient = make_gradient(apply, objective, inputs=inputs)

    def train_step(state: TrainState, batch: Batch):
        check_batch(batch)
        augment_key, key = step_keys(state, axis_name)
        count = jnp.maximum(total(batch["weight"], axis_name), 1)

        def of_part(model_state: PyTree, part: Batch, number) -> Gradient:
            part = augmented(augment, augment_key, part)
            own_key = jax.random.fold_in(key, number)
            return gradient(state.params, model_state, part, count, own_key)

        parts = _micro_batches(batch, micro_batches)
        whole = _accumulate(of_part, state.model_state, parts, micro_batches)
        return finish(optimizer, state, whole, axis_name=axis_name)

    return train_step


def _micro_batches(batch: Batch, count: int) -> PyTree:
    """[B, ...] leaves to [count, B / count, ...]."""
    rows = len(batch["image"])
    if rows % count:
        raise ValueError(
            f"The batch must divide into {count} micro-batches, got {rows} images. "
            f"Use --batch-size {-(-rows // count) * count}."
        )
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(rows // count, count, *x.shape[1:]), 1, 0),
        dict(batch),
    )


def _accumulate(
    of_part: Callable[..., Gradient], model_state: PyTree, parts: PyTree, count: int
) -> Gradient:
    """Sums over the parts, which see each other's model state in turn."""

    def add(sums: Gradient, numbered) -> tuple[Gradient, None]:
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
        return jax.lax.scan(add, sums, (jnp.arange(count), parts))[0]
    for number in range(count):
        part = jax.tree.map(lambda x, number=number: x[number], parts)
        sums, _ = add(sums, (number, _after(sums, part)))
    return sums


def _after(sums: Gradient, part: PyTree) -> PyTree:
    """The same part, in a way that XLA cannot begin with before it has the sums.

    Otherwise the CPU's compiler may run all parts side by side and holds all of their
    activations: it drops `optimization_barrier` before it assigns memory. So one
    pixel value depends on something that never is, but which it cannot rule out.
    """
    seen = sum(jnp.ravel(x)[0] for x in jax.tree.leaves(sums.grads) if x.size)
    never = jnp.asarray(seen == jnp.finfo(jnp.float32).max)
    return part | {"image": part["image"] + never.astype(part["image"].dtype)}
