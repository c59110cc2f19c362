"""Ensembles of trained models, in one program where they share a network."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.cpu_inference import faster_on_cpu
from segjax.errors import UserError
from segjax.forward import Forward
from segjax.inference import transforms
from segjax.inference.model import Model
from segjax.inference.predictor import Predictor
from segjax.inference.transforms import PredictFn
from segjax.typing import Array, Batch, PyTree


def model_ensemble(
    models: Sequence[Model],
    *,
    temperatures: Sequence[float] | None = None,
    disagreement: bool = False,
) -> PredictFn:
    """Builds the prediction function of one or several trained models.

    Models that differ in their variables only, such as the seeds of `segjax seeds`,
    have their variables stacked and run in one program.

    Args:
        models: Semantic or multilabel models with the same classes and images.
        temperatures: One for each model; see `temperature`.
        disagreement: Appends a channel with the members' disagreement; see
            `inference.disagreement`.

    Returns:
        The function to mean probabilities [B, H, W, C], or [B, H, W, C + 1].

    Raises:
        ValueError: If the models do not fit together, or disagreement is wanted of one
            model.
    """
    _check(models, temperatures, disagreement=disagreement)
    values = [1.0] * len(models) if temperatures is None else list(temperatures)
    multilabel = models[0].description["task"] == "multilabel"
    if _share_network(models):
        members = _Members(
            **_fields(models[0].forward),
            activation=jax.nn.sigmoid if multilabel else jax.nn.softmax,
            temperatures=tuple(values),
            disagreement=disagreement,
            multilabel=multilabel,
        )
        about = models[0].description
        predictor = Predictor(
            members,
            jax.tree.map(lambda *x: jnp.stack(x), *(m.variables for m in models)),
            multiple=about["multiple"],
            max_shapes=about["max_shapes"],
            activation=lambda probs: probs,
        )
        return PlannedFn(predictor, models[0])
    predicts = [
        transforms.temperature(model.probabilities, value, multilabel=multilabel)
        for model, value in zip(models, values, strict=True)
    ]
    if not disagreement:
        return transforms.ensemble(predicts)

    def both(images: Array) -> Array:
        return _joined([f(images) for f in predicts], multilabel=multilabel)

    return both


@dataclasses.dataclass(frozen=True)
class PlannedFn:
    """The prediction function of a predictor, whose padded sizes can be planned.

    Attributes:
        predictor: Runs all members.
        like: A member, whose images it takes.
    """

    predictor: Predictor
    like: Model

    def __call__(self, images: Array) -> Array:
        """[B, H, W, K] as stored to [B, H, W, C]."""
        made = self.predictor.batch(np.asarray(images))
        return np.stack([np.asarray(x) for x in made])

    def temporary_bytes(self, side: int) -> int:
        """See `Model.temporary_bytes`."""
        return dataclasses.replace(
            self.like, _predictor=self.predictor
        ).temporary_bytes(side)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Members(Forward):
    """A network whose outputs are the mean probabilities of stacked variables."""

    activation: Callable[[Array], Array]
    temperatures: tuple[float, ...]
    disagreement: bool
    multilabel: bool

    def __call__(
        self, variables: PyTree, batch: Batch, *, train: bool = False, rngs: Any = None
    ) -> tuple[Any, PyTree]:
        """Runs all members on a stored batch, for prediction only."""
        plain = Forward(self.model, self.preprocess, self.model_inputs)
        network = faster_on_cpu(plain)

        def member(own: PyTree, temperature: Array) -> Array:
            outputs, _ = network(own, batch)
            return self.activation(outputs / temperature)

        values = jnp.asarray(self.temperatures, jnp.float32)
        if jax.default_backend() == "cpu":  # Mapped convolutions are slow there.
            own = (
                jax.tree.map(lambda x, i=i: x[i], variables)
                for i in range(len(self.temperatures))
            )
            probs = [member(x, t) for x, t in zip(own, values, strict=True)]
        else:
            probs = list(jax.vmap(member)(variables, values))
        if self.disagreement:
            return _joined(probs, multilabel=self.multilabel), None
        return sum(probs[1:], probs[0]) / len(probs), None


def _joined(members: Sequence[Array], *, multilabel: bool) -> Array:
    """The members' mean and, as a last channel, their disagreement."""
    found = transforms.mutual_information(members, multilabel=multilabel)
    mean = sum(members[1:], members[0]) / len(members)
    return jnp.concatenate([mean, found], axis=-1)


def _fields(forward: Forward) -> dict[str, Any]:
    return {f.name: getattr(forward, f.name) for f in dataclasses.fields(Forward)}


def _share_network(models: Sequence[Model]) -> bool:
    shapes = [
        jax.tree.map(lambda x: (x.shape, str(x.dtype)), model.variables)
        for model in models
    ]
    first = models[0].forward
    return all(m.forward == first for m in models) and all(
        s == shapes[0] for s in shapes
    )


def _check(
    models: Sequence[Model], temperatures: Sequence[float] | None, *, disagreement: bool
) -> None:
    if not models or (disagreement and len(models) < 2):
        raise UserError(
            f"An ensemble needs at least one model, and disagreement two, got "
            f"{len(models)}."
        )
    if temperatures is not None and len(temperatures) != len(models):
        raise UserError(
            f"An ensemble needs a temperature for each of {len(models)} models, got "
            f"{len(temperatures)}."
        )
    first = models[0]
    for model in models:
        if model.description["task"] == "instance":
            raise UserError(
                f"{model.folder} predicts objects. Combine detectors "
                f"by inference.ensemble_objects."
            )
        for name in ("classes", "task", "image"):
            mine, other = model.description[name], first.description[name]
            if name == "image":
                mine, other = (
                    {k: x[k] for k in ("channels", "dtype")} for x in (mine, other)
                )
            if mine != other:
                raise UserError(
                    f"{model.folder} and {first.folder} cannot be combined: their "
                    f"{name} differ, {mine} and {other}. Combine runs of one data set."
                )
