"""Gradient accumulation: a large batch in the memory of a small one."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from segjax.typing import Batch, PyTree


@flax.struct.dataclass
class Part:
    """What a micro-batch, or the sum of several, adds to an update.

    Attributes:
        grads: Of the part's share of the loss, in the parameters' structure.
        value: Its share of the loss.
        terms: Its share of each of the objective's terms.
        model_state: Collections besides params after the part.
    """

    grads: PyTree
    value: Any
    terms: dict[str, Any]
    model_state: PyTree


def value_and_grad(loss_fn: Callable, *, micro_batches: int = 1) -> Callable:
    """The gradient of a batch, computed in m parts: activations of B / m images only.

    Micro-batch j is the rows j, j + m, ... of the batch, on every device, so that
    none has to move. Each one's sum is divided by the examples of weight 1 in the
    whole batch, however they lie in the micro-batches, and augmentation is keyed by
    the example: the gradient is that of the whole batch, to rounding.

    Batch norm is the exception, here as elsewhere: it normalizes by the statistics of
    each micro-batch, over all devices, and its averages are updated m times a step.
    The result still does not depend on the number of devices or processes. To have
    statistics of the whole batch in less memory, recompute with `models.remat` on the
    blocks of a model, or use group norm. Dropout draws other masks than the whole
    batch would.

    On a CPU the parts are unrolled, so that the program grows with m: convolutions
    inside a loop are 5 to 30 times slower there.

    Args:
        loss_fn: Of `make_loss`, or like it.
        micro_batches: m, at least 1. B / devices must divide by it.

    Returns:
        `(params, model_state, batch, prepare, *, count, key, step) -> (grads, value,
        terms, model_state, value_fn)`: `prepare` makes computed batches of stored
        ones; `value_fn` is `params -> value` on the same batch and keys.

    Raises:
        ValueError: If `micro_batches` is below 1, and, when traced, if B does not
            divide by it.
    """
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}.")
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

        def of_part(model_state: PyTree, part: Batch, number) -> Part:
            (value, (terms, new_state)), grads = gradient(
                params, model_state, prepare(part), **options(number)
            )
            return Part(grads, value, terms, new_state)

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
        raise ValueError(
            f"The batch must divide into {count} micro-batches, got {rows} images. "
            f"Use --batch-size {-(-rows // count) * count}."
        )
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(rows // count, count, *x.shape[1:]), 1, 0),
        dict(batch),
    )


def _accumulate(
    of_part: Callable[..., Part], model_state: PyTree, parts: PyTree, count: int
) -> Part:
    """Sums over the parts, which see each other's model state in turn."""

    def add(sums: Part, numbered) -> tuple[Part, None]:
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
        sums, _ = add(sums, (number, _after(sums, part)))
    return sums


def _after(sums: Part, part: PyTree) -> PyTree:
    """The same part, in a way that XLA cannot begin with before it has the sums.

    Otherwise the CPU's compiler may run all parts side by side and holds all of their
    activations: it drops `optimization_barrier` before it assigns memory. So one
    pixel value depends on something that never is, but which it cannot rule out.
    """
    seen = sum(jnp.ravel(x)[0] for x in jax.tree.leaves(sums.grads) if x.size)
    never = jnp.asarray(seen == jnp.finfo(jnp.float32).max)
    return part | {"image": part["image"] + never.astype(part["image"].dtype)}
