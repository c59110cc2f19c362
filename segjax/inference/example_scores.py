"""Loss and gradient norm of each example, to find mislabeled or hard ones."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.forward import Forward, loss_terms
from segjax.typing import Array, Batch, Objective, PyTree

Scores = dict[str, Array]
"""`loss`, `loss/<term>` and optionally `gradient_norm`, float32 [B] each."""
ScoreFn = Callable[[PyTree, Batch], Scores]

_BATCH_STATISTICS = "batch_stats"


def make_example_losses(
    forward: Forward, objective: Objective, *, step: int | None = None
) -> ScoreFn:
    """Builds `(variables, batch) -> {"loss": [B], "loss/<term>": [B]}`.

    Outputs are computed as in evaluation: batch norm uses its running averages, and
    there is no dropout. If the objective has no terms for these, as `losses.instance`
    has none for detections, outputs are computed as in training instead, for one
    example at a time, so that means over the batch are over the example. Random numbers
    then come from a key folded with the example's `index`, so that a loss does not
    depend on the batch or the run, and batch norm normalizes over the example.

    Args:
        forward: The network with its preprocessing.
        objective: The objective of training.
        step: Number of updates done, for objectives that depend on it.

    Returns:
        The function of stored batches, not compiled. `loss` is the sum of the terms.
        Values of rows with weight 0 are meaningless; `score_examples` drops them.
    """

    def score(variables: PyTree, example: Batch) -> Scores:
        return _named(_training_terms(forward, objective, variables, example, step))

    def example_losses(variables: PyTree, batch: Batch) -> Scores:
        terms = _evaluation_terms(forward, objective, variables, batch, step)
        return _named(terms) if terms else _each(score, variables, batch)

    return example_losses


def make_example_scores(
    forward: Forward, objective: Objective, *, step: int | None = None
) -> ScoreFn:
    """Like `make_example_losses`, with the gradient norm of each example.

        gradient_norm[i] = |d loss[i] / d params|, over all parameters

    Per-example gradients are computed by `vmap` over the batch; only their norms are
    returned. On a CPU, use batches of one example, which are not mapped: weight
    gradients of mapped convolutions are slower and less accurate there.

    Args:
        forward: The network with its preprocessing.
        objective: The objective of training.
        step: Number of updates done, for objectives that depend on it.

    Returns:
        The function, not compiled. Its result also has `gradient_norm`, float32 [B].

    Raises:
        ValueError: When called with a model with batch norm, since an example's
            gradient in training then depends on the rest of the batch.

    Reference:
        Paul et al., Deep Learning on a Data Diet, 2021, section 2 (GraNd).
        arXiv:2107.07075. The paper averages over initializations, early in training,
        to find important examples; this uses one trained model, as in their section on
        label noise.
    """

    def loss_of(params: PyTree, collections: PyTree, example: Batch):
        variables = {"params": params, **collections}
        terms = _evaluation_terms(forward, objective, variables, example, step)
        if not terms:
            terms = _training_terms(forward, objective, variables, example, step)
        scores = _named(terms)
        return jnp.sum(scores["loss"]), scores

    def score(variables: PyTree, example: Batch) -> Scores:
        collections = dict(variables)
        params = collections.pop("params")
        gradient, scores = jax.grad(loss_of, has_aux=True)(params, collections, example)
        squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(gradient)]
        return scores | {"gradient_norm": jnp.sqrt(jnp.stack(squares).sum())[None]}

    def example_scores(variables: PyTree, batch: Batch) -> Scores:
        if has_batch_statistics(variables):
            raise UserError(
                "A gradient norm per example needs a model without batch norm, with "
                "which an example's gradient is not defined by the example alone. Rank "
                "by loss (--by loss), or train with group norm."
            )
        return _each(score, variables, batch)

    return example_scores


def has_batch_statistics(variables: PyTree) -> bool:
    """Whether a model normalizes over the batch in training."""
    return _BATCH_STATISTICS in variables


def score_examples(
    score: ScoreFn, variables: PyTree, batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Scores the examples of a stream of batches.

    Args:
        score: Compiled; from one of the functions above.
        variables: Parameters and other collections.
        batches: On the host. Rows of weight 0 are dropped.

    Returns:
        `index`, the positions in the split in ascending order, int64 [N], and the
        scores by name, float64 [N], in that order.

    Raises:
        ValueError: If there are no examples.
    """
    parts = []
    for batch in batches:
        kept = np.asarray(batch["weight"]) > 0
        parts.append((batch["index"][kept], kept, score(variables, dict(batch))))
    if not parts:
        raise UserError("Scoring needs at least one example, got none.")
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
    """Returns positions by descending score, int [N]; NaN first, ties in order."""
    scores = np.asarray(scores, np.float64)
    return np.argsort(-np.where(np.isnan(scores), np.inf, scores), kind="stable")


def _evaluation_terms(
    forward: Forward,
    objective: Objective,
    variables: PyTree,
    batch: Batch,
    step: int | None,
) -> dict[str, Array]:
    prepared = forward.prepare(batch)
    outputs, _ = forward.apply(variables, prepared, train=False)
    return loss_terms(objective, outputs, forward.truth(prepared), step=step)


def _training_terms(
    forward: Forward,
    objective: Objective,
    variables: PyTree,
    example: Batch,
    step: int | None,
) -> dict[str, Array]:
    """Computes the terms of a batch of one example, with a key from its index."""
    prepared = forward.prepare(example)
    key = jax.random.fold_in(jax.random.key(0), prepared["index"][0])
    outputs, _ = forward.apply(variables, prepared, train=True, rngs={"params": key})
    terms = loss_terms(objective, outputs, forward.truth(prepared), step=step)
    if not terms:
        raise UserError(
            "Ranking needs an objective with at least one term, got none for the "
            "model's outputs, neither in evaluation nor in training."
        )
    return terms


def _each(score: ScoreFn, variables: PyTree, batch: Batch) -> Scores:
    """Maps a function of batches of one example over the examples of a batch."""
    if len(batch["weight"]) == 1:
        return score(variables, batch)

    def one(example: Batch) -> Scores:
        alone = jax.tree.map(lambda x: x[None], example)
        return {name: value[0] for name, value in score(variables, alone).items()}

    return jax.vmap(one)(dict(batch))


def _named(terms: dict[str, Array]) -> Scores:
    loss = jnp.sum(jnp.stack(list(terms.values())), axis=0)
    return {"loss": loss, **{f"loss/{name}": value for name, value in terms.items()}}
