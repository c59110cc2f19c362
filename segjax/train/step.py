"""The train step: pure, on one screen."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax import ops
from segjax.train.state import TrainState
from segjax.typing import Array, Augmentation, Batch, Key, Objective, PyTree

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
Inputs = Callable[[Batch], dict[str, Any]]
"""`batch -> {name: argument}` of the model's call."""

DIGESTED = 5
"""Updates of a run whose gradient and parameters are digested, the first ones."""


def image_only(batch: Batch) -> dict[str, Any]:
    """What a semantic model is given of a batch: `image`."""
    return {"image": batch["image"]}


def make_train_step(
    apply: Callable,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augment: Augmentation | None = None,
    *,
    inputs: Inputs = image_only,
    axis_name: str | None = None,
) -> Step:
    """Builds `(state, batch) -> (state, scalars)`; plain SGD is W = W - lr * dL/dW.

    L is the objective's mean over examples of weight 1 in the global batch. The step
    is not compiled here; `parallel.py` wraps it in jit or pmap. With `axis_name`,
    sums run over that axis too, so both give the same numbers.

    Args:
        apply: `model.apply` of a linen module.
        objective: `(outputs, batch) -> {name: [B]}`.
        optimizer: An optax transformation.
        augment: Applied to each example on the device. Its key comes from (seed,
            step, index), so no device count, batch order or worker count can change
            what it does. `data.augment.compose` makes one of several.
        inputs: What the model is given of a batch, by name.
        axis_name: The mapped axis under `pmap`.

    Returns:
        The step. Its scalars are `loss`, `loss/<term>` and `grad_norm`, float32, and
        digests (`ops.digest`, uint32) of what it worked on: `digest/batch`, as
        augmented, `digest/gradients`, and `digest/params`, as updated. The latter two
        are 0 after the first `DIGESTED` updates.
    """
    gradient = make_gradient(apply, objective, inputs=inputs)

    def train_step(state: TrainState, batch: Batch):
        check_batch(batch)
        augment_key, key = step_keys(state, axis_name)
        batch = augmented(augment, augment_key, batch)
        count = jnp.maximum(total(batch["weight"], axis_name), 1)
        part = gradient(state.params, state.model_state, batch, count, key)
        return finish(optimizer, state, part, axis_name=axis_name)

    return train_step


@flax.struct.dataclass
class Gradient:
    """What a batch, or a part of one, adds to an update.

    Attributes:
        grads: Of the part's share of the loss, in the parameters' structure.
        terms: The objective's terms, float32: the part's share of each mean.
        model_state: Collections besides params after the part.
        digest: uint32, of the part's examples.
    """

    grads: PyTree
    terms: dict[str, Any]
    model_state: PyTree
    digest: Any


def make_gradient(
    apply: Callable, objective: Objective, *, inputs: Inputs = image_only
) -> Callable[..., Gradient]:
    """Builds `(params, model_state, batch, count, key) -> Gradient`.

    `batch` is augmented already; `count` is the number of examples of weight 1 in the
    global batch, by which sums over this part of it are divided; `key` is for dropout.

    Args:
        apply: `model.apply` of a linen module.
        objective: `(outputs, batch) -> {name: [B]}`.
        inputs: What the model is given of a batch, by name.
    """

    def gradient(params, model_state, batch, count, key) -> Gradient:
        def loss_fn(params):
            outputs, new_state = apply(
                {"params": params, **model_state},
                **inputs(batch),
                train=True,
                rngs={"dropout": key},
                mutable=list(model_state),
            )
            terms = objective(outputs, batch)
            weight = batch["weight"]  # [B], 0 for the padding of a short batch.
            sums = {k: jnp.sum(v * weight) / count for k, v in terms.items()}
            return sum(sums.values()), (sums, new_state)

        grads, (terms, new_state) = jax.grad(loss_fn, has_aux=True)(params)
        return Gradient(grads, terms, new_state, total(row_digests(batch), None))

    return gradient


def finish(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    whole: Gradient,
    *,
    axis_name: str | None,
) -> tuple[TrainState, dict[str, Array]]:
    """The update and its scalars, from the gradient of this device's whole batch."""
    grads, model_state = whole.grads, whole.model_state
    if axis_name:
        grads = jax.lax.psum(grads, axis_name)
        model_state = jax.lax.pmean(model_state, axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    scalars = {f"loss/{k}": total(v, axis_name) for k, v in whole.terms.items()}
    scalars["loss"] = jnp.sum(jnp.stack(list(scalars.values())))
    scalars["grad_norm"] = optax.tree.norm(grads)
    scalars["digest/batch"] = total(whole.digest, axis_name)
    scalars["digest/gradients"] = _early_digest(state.step, grads)
    new = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
    )
    scalars["digest/params"] = _early_digest(state.step, new.params)
    return new, scalars


def _early_digest(step: Array, tree: PyTree) -> Array:
    """The digest of a tree as large as the parameters in the first updates, then 0.

    Only those are recorded, and small batches pay for it: in each step it cost a sixth
    of a U-Net's at batch 1 (32x32 pixels, 0.3 to 7.7 million parameters, two cores).
    """
    nothing = jnp.zeros((), jnp.uint32)
    return jax.lax.cond(step < DIGESTED, ops.digest, lambda _: nothing, tree)


def step_keys(state: TrainState, axis_name: str | None) -> tuple[Key, Key]:
    """The keys of a step: for augmentation, and for dropout, which differs by device.

    Under jit there is one program, and dropout is drawn for the batch as a whole.
    """
    augment_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
    if axis_name:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    return augment_key, key


def total(x: Array, axis_name: str | None) -> Array:
    """The sum of an array, in its own dtype, over a mapped axis too if there is one."""
    x = jnp.sum(x, dtype=x.dtype)
    return jax.lax.psum(x, axis_name) if axis_name else x


def skip_nonfinite(step: Step) -> Step:
    """A step that leaves an update out where its loss or gradient is not finite.

    The state then stays as it was, but for its step count. The scalars tell: they are
    not finite.

    Args:
        step: What `make_train_step` returned.
    """

    def guarded_step(state: TrainState, batch: Batch):
        new, scalars = step(state, batch)
        good = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["grad_norm"])
        kept = {
            part: jax.tree.map(
                lambda a, b: jnp.where(good, a, b),
                getattr(new, part),
                getattr(state, part),
            )
            for part in ("params", "model_state", "opt_state")
        }
        return dataclasses.replace(new, **kept), scalars

    return guarded_step


def augmented(augment: Augmentation | None, key: Key, batch: Batch) -> Batch:
    """Applies an augmentation to each example under a key of its own.

    Args:
        augment: `(key, example) -> example`, or None.
        key: One for the step; example i uses `fold_in(key, batch["index"][i])`.
        batch: A batch as the pipeline yields it.

    Returns:
        The batch with its image as float32 in [0, 1].
    """
    batch = dict(batch) | {"image": ops.to_float(batch["image"])}
    if augment is None:
        return batch
    kept = {k: batch.pop(k) for k in ("weight", "index")}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, kept["index"])
    return jax.vmap(augment)(keys, batch) | kept


def row_digests(batch: Batch) -> Array:
    """[B] uint32: a digest of each example; their sum does not depend on the split.

    `index` is among what is digested, so that two examples cannot trade places.
    """
    return jax.vmap(ops.digest)(dict(batch))


def check_batch(batch: Batch) -> None:
    """Shapes and dtypes, once a compilation; nothing of it is left in the program."""
    chex.assert_rank([batch["image"], batch["weight"], batch["index"]], [4, 1, 1])
    chex.assert_equal_shape_prefix(list(batch.values()), 1)
    chex.assert_type(
        [batch["weight"], batch["index"]],
        [jnp.float32, jnp.int32],
    )
