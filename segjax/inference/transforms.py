"""Transforms of prediction functions: augmentation, ensembles, uncertainty.

A prediction function maps images [B, H, W, K] as stored to probabilities float32
[B, H, W, C]. Each transform takes such functions and returns one, so that they can be
composed in any order, with `sliding_window` too:

    predict = sliding_window(tta(ensemble([a.probabilities, b.probabilities])))
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array

PredictFn = Callable[[Array], Array]
"""`images [B, H, W, K] as stored -> probabilities float32 [B, H, W, C]`."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Dihedral:
    """One of the eight flips and quarter turns of the pixel grid; exactly invertible.

    Attributes:
        turns: Counterclockwise quarter turns, 0 to 3.
        mirror: Whether columns are reversed before the turns.
    """

    turns: int = 0
    mirror: bool = False

    def __post_init__(self):
        if self.turns not in (0, 1, 2, 3):
            raise UserError(f"turns needs to be 0, 1, 2 or 3, got {self.turns}.")

    def apply(self, x: Array) -> Array:
        """Transforms maps [B, H, W, ...]."""
        if self.mirror:
            x = x[:, :, ::-1]
        if self.turns % 2:
            x = x.swapaxes(1, 2)[:, ::-1]
        return x[:, ::-1, ::-1] if self.turns >= 2 else x

    def invert(self, x: Array) -> Array:
        """Undoes `apply`."""
        if self.turns >= 2:
            x = x[:, ::-1, ::-1]
        if self.turns % 2:
            x = x[:, ::-1].swapaxes(1, 2)
        return x[:, :, ::-1] if self.mirror else x


FLIPS = (Dihedral(), Dihedral(0, True), Dihedral(2), Dihedral(2, True))
"""The identity, both flips, and both at once."""
DIHEDRAL = tuple(
    Dihedral(turns, mirror) for mirror in (False, True) for turns in range(4)
)
"""All flips and quarter turns, the identity first."""


def tta(
    predict: PredictFn,
    *,
    transforms: Sequence[Dihedral] = DIHEDRAL,
    scales: Sequence[float] = (1.0,),
) -> PredictFn:
    """Test-time augmentation: averages predictions of transformed images.

    Args:
        predict: The prediction function.
        transforms: Flips and turns; `FLIPS` where the vertical differs from the
            horizontal too much for turns.
        scales: Factors by which images are resized, bilinearly and without
            antialiasing; probabilities are resized back. Each one is combined with all
            transforms. Integer images are rounded after resizing.

    Returns:
        The prediction function. Turns are inverted exactly; the result is the mean of
        `len(transforms) * len(scales)` predictions.

    Raises:
        ValueError: If there are no transforms or scales, or a scale is not above 0.
    """
    if not transforms or not scales or min(scales) <= 0:
        raise UserError(
            f"tta needs at least one transform, and scales above 0, got "
            f"{len(transforms)} transforms and scales {tuple(scales)}."
        )

    def augmented(images: Array) -> Array:
        total: Any = 0.0
        size = images.shape[1:3]
        for scale in scales:
            scaled = [max(1, round(side * scale)) for side in size]
            resized = _resize(images, scaled)
            for transform in transforms:
                made = transform.invert(predict(transform.apply(resized)))
                total = total + _resize(made, size)
        return total * np.float32(1 / (len(transforms) * len(scales)))

    return augmented


def ensemble(predicts: Sequence[PredictFn]) -> PredictFn:
    """Averages the probabilities of several prediction functions.

    Args:
        predicts: With the same classes. Models that differ in their parameters only
            run in one program as `stacked_ensemble`.
    """
    if not predicts:
        raise UserError("ensemble needs at least one prediction function, got none.")

    def averaged(images: Array) -> Array:
        total: Any = 0.0
        for predict in predicts:
            total = total + predict(images)
        return total * np.float32(1 / len(predicts))

    return averaged


def temperature(
    predict: PredictFn, value: float, *, multilabel: bool = False
) -> PredictFn:
    """Divides logits by a temperature: above 1, probabilities are less confident.

    Works on probabilities, whose logits are known up to a constant that does not
    matter: softmax(log(p) / T).

    Args:
        predict: Its probabilities; those below 1e-38 are taken as 1e-38.
        value: T, above 0; see `fit_temperature`.
        multilabel: Whether each class has a sigmoid of its own.
    """
    if not 0 < value < float("inf"):
        raise UserError(f"temperature needs a value above 0, got {value}.")

    def tempered(images: Array) -> Array:
        probs = predict(images)
        xp = _namespace(probs)
        # Relative to the largest, so that small temperatures do not underflow.
        logs = xp.log(xp.maximum(probs, _TINY)) / np.float32(value)
        if multilabel:
            others = xp.log(xp.maximum(1 - probs, _TINY)) / np.float32(value)
            top = xp.maximum(logs, others)
            logs, others = xp.exp(logs - top), xp.exp(others - top)
            return logs / (logs + others)
        made = xp.exp(logs - logs.max(axis=-1, keepdims=True))
        return made / made.sum(axis=-1, keepdims=True)

    return tempered


def entropy(predict: PredictFn, *, multilabel: bool = False) -> PredictFn:
    """Predicts the entropy of each pixel's class instead of probabilities.

    Args:
        predict: Its probabilities.
        multilabel: Whether each class has a sigmoid of its own; the result is then the
            mean entropy of the classes.

    Returns:
        A function to float32 [B, H, W, 1]: 0 for certain, 1 for equally probable
        classes.
    """
    return lambda images: pixel_entropy(predict(images), multilabel=multilabel)


def disagreement(
    predicts: Sequence[PredictFn], *, multilabel: bool = False
) -> PredictFn:
    """Predicts how much the members of an ensemble disagree about each pixel.

    That is the entropy of the mean less the mean of the entropies (the mutual
    information of class and member): 0 where all members predict the same
    probabilities, however uncertain.

    Args:
        predicts: The members, at least two.
        multilabel: See `entropy`.

    Returns:
        A function to float32 [B, H, W, 1] in [0, 1], in the units of `entropy`.

    Reference:
        Houlsby et al., Bayesian Active Learning for Classification, 2011,
        arXiv:1112.5745.
    """
    if len(predicts) < 2:
        raise UserError(f"disagreement needs two members, got {len(predicts)}.")

    def disagreed(images: Array) -> Array:
        return mutual_information(
            [predict(images) for predict in predicts], multilabel=multilabel
        )

    return disagreed


def pixel_entropy(probs: Array, *, multilabel: bool = False) -> Array:
    """Computes the entropy of probabilities [..., C] in [0, 1], [..., 1]."""
    xp = _namespace(probs)
    if multilabel:
        each = _plogp(probs, xp) + _plogp(1 - probs, xp)
        return each.mean(axis=-1, keepdims=True) * np.float32(-1 / np.log(2))
    unit = np.float32(-1 / np.log(max(2, probs.shape[-1])))
    return _plogp(probs, xp).sum(axis=-1, keepdims=True) * unit


def mutual_information(members: Sequence[Array], *, multilabel: bool = False) -> Array:
    """Computes `disagreement` of members' probabilities [..., C], [..., 1]."""
    mean: Any = 0.0
    entropies: Any = 0.0
    for probs in members:
        mean = mean + probs
        entropies = entropies + pixel_entropy(probs, multilabel=multilabel)
    part = np.float32(1 / len(members))
    found = pixel_entropy(mean * part, multilabel=multilabel) - entropies * part
    return _namespace(found).maximum(found, 0)


def _plogp(p: Array, xp: Any) -> Array:
    return p * xp.log(xp.maximum(p, _TINY))


def _namespace(x: Array) -> Any:
    """NumPy for arrays of the host, so that large results stay there."""
    return np if isinstance(x, np.ndarray) else jax.numpy


def _resize(x: Array, size: Sequence[int]) -> Array:
    """Resizes [B, H, W, C] bilinearly; by indices, so that nothing is compiled."""
    if tuple(size) == tuple(x.shape[1:3]):
        return x
    xp, made = _namespace(x), x.astype(np.float32)
    for axis, length in zip((1, 2), size, strict=True):
        center = (np.arange(length) + 0.5) * (x.shape[axis] / length) - 0.5
        center = np.clip(center, 0, x.shape[axis] - 1)
        low = np.floor(center).astype(np.int32)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (center - low).astype(np.float32)
        part = part.reshape([-1 if i == axis else 1 for i in range(made.ndim)])
        one, two = xp.take(made, low, axis=axis), xp.take(made, high, axis=axis)
        made = one * (1 - part) + two * part
    is_integer = np.issubdtype(x.dtype, np.integer)
    return (xp.round(made) if is_integer else made).astype(x.dtype)
