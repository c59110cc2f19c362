"""Which examples a trained model disagrees with: loss and gradient norm of each."""

from collections.abc import Callable, Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import ops
from segjax.typing import Array, Batch, Objective, PyTree

Scores = dict[str, Array]
"""`loss`, `loss/<term>` and perhaps `gradient_norm`, float32 [B] each."""
ScoreFn = Callable[[PyTree, Batch], Scores]
Inputs = Callable[[Batch], dict[str, Any]]

_BATCH_STATISTICS = "batch_stats"


def make_example_losses(
    apply: Callable, objective: Objective, *, inputs: Inputs
) -> ScoreFn:
    """Builds `(variables, batch) -> {"loss": [B], "loss/<term>": [B]}`.

    Args:
        apply: `model.apply` of a linen module; called with `train=False`, so batch
            norm uses its running averages and dropout is off.
        objective: What training minimises.
        inputs: What the model is given of a batch, by name.

    Returns:
        The function, not compiled. `loss` is the sum of the terms. Rows of weight 0
        get values that mean nothing: `score_examples` leaves them out.
    """

    def example_losses(variables: PyTree, batch: Batch) -> Scores:
        batch = _as_float(batch)
        outputs = apply(variables, **inputs(batch), train=False)
        return _named(objective(outputs, batch))

    return example_losses


def make_example_scores(
    apply: Callable, objective: Objective, *, inputs: Inputs
) -> ScoreFn:
    """Like `make_example_losses`, with the norm of each example's gradient.

        gradient_norm[i] = |d loss[i] / d params|, over all parameters together

    The gradients are those of one example at a time, mapped over the batch by
    `vmap`; only their norms are kept. On a CPU give batches of one example: the
    convolutions' weight gradients of a mapped batch become grouped convolutions,
    which are no faster there (0.9 to 1.5 times the time) and round worse, and in a
    `lax.map` they take ten times as long.

    Args:
        apply: `model.apply` of a linen module; called with `train=False`.
        objective: What training minimises.
        inputs: What the model is given of a batch, by name.

    Returns:
        The function, not compiled. Its result adds `gradient_norm`, float32 [B].

    Raises:
        ValueError: From the function, if the model has batch norm: in training, an
            example's gradient then depends on the others of its batch.

    Reference:
        Paul et al., Deep Learning on a Data Diet, 2021, section 2 (GraNd).
        arXiv:2107.07075. The paper averages over initialisations, early in training,
        to tell which examples matter; this is one trained model, as in their section
        on label noise.
    """

    def loss_of(params: PyTree, collections: PyTree, batch: Batch):
        outputs = apply({"params": params, **collections}, **inputs(batch), train=False)
        scores = _named(objective(outputs, batch))
        return jnp.sum(scores["loss"]), scores

    def score(variables: PyTree, example: Batch) -> Scores:
        collections = dict(variables)
        params = collections.pop("params")
        alone = jax.tree.map(lambda x: x[None], example)
        gradient, scores = jax.grad(loss_of, has_aux=True)(params, collections, alone)
        scores = {name: value[0] for name, value in scores.items()}
        return scores | {"gradient_norm": optax.tree.norm(gradient)}

    def example_scores(variables: PyTree, batch: Batch) -> Scores:
        if has_batch_statistics(variables):
            raise ValueError(
                "A gradient norm per example needs a model whose examples do not "
                "see each other, got one with batch norm: an example's gradient is "
                "not defined by the example alone. Rank by loss (--by loss), or "
                "train with group norm."
            )
        return jax.vmap(score, (None, 0))(variables, _as_float(batch))

    return example_scores


def has_batch_statistics(variables: PyTree) -> bool:
    """Whether a model normalises over the batch in training."""
    return _BATCH_STATISTICS in variables


def score_examples(
    score: ScoreFn, variables: PyTree, batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Scores a stream of batches, each example once.

    Args:
        score: Compiled; from one of the functions above.
        variables: Parameters and other collections.
        batches: On the host. Rows of weight 0 are left out.

    Returns:
        `index`, the places in the split in ascending order, int64 [N], and the
        scores by name, float64 [N], in that order.

    Raises:
        ValueError: If there is no example.
    """
    parts = []
    for batch in batches:
        kept = np.asarray(batch["weight"]) > 0
        parts.append((batch["index"][kept], kept, score(variables, dict(batch))))
    if not parts:
        raise ValueError("Scoring needs at least one example, got none.")
    index = np.concatenate([part[0] for part in parts]).astype(np.int64)
    order = np.argsort(index)
    rows = [
        {k: v[kept] for k, v in scores.items()}
        for _, kept, scores in jax.device_get(parts)
    ]
    columns = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
    return {"index": index[order]} | {
        name: column[order].astype(np.float64) for name, column in columns.items()
    }


def ranked(scores: Array) -> np.ndarray:
    """Positions by falling score, int [N]; not-a-number first, ties in order."""
    scores = np.asarray(scores, np.float64)
    return np.argsort(-np.where(np.isnan(scores), np.inf, scores), kind="stable")


def _named(terms: dict[str, Array]) -> Scores:
    chex.assert_rank(list(terms.values()), 1)
    loss = jnp.sum(jnp.stack(list(terms.values())), axis=0)
    return {"loss": loss, **{f"loss/{name}": value for name, value in terms.items()}}


def _as_float(batch: Batch) -> dict[str, Any]:
    return dict(batch) | {"image": ops.to_float(batch["image"])}
