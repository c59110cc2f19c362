"""Centerline Dice (clDice), for thin structures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import optional
from segjax.metrics import common
from segjax.metrics.combine import on_host
from segjax.metrics.common import Masks
from segjax.metrics.reduce import mean_over_classes
from segjax.metrics.rows import WRONG, PerImage
from segjax.ops import checks
from segjax.typing import Batch, Logits, MetricFn


def cl_dice(predicted: Masks, truth: Masks) -> float:
    """Centerline Dice of two masks, on the host.

    With skeletons S_P and S_T of the masks P and T,

        2 a b / (a + b),  a = |S_P and T| / |S_P|,  b = |S_T and P| / |S_T|

    Args:
        predicted: [H, W] True, or not 0, on the structure.
        truth: [H, W] likewise.

    Returns:
        Score in [0, 1]; NaN if both masks are empty, 0 if only one is.

    Reference:
        Shit et al., clDice, CVPR 2021, arXiv:2003.07311, section 2. The skeleton is
        scikit-image's, as in the authors' code; their loss has a soft skeleton.

    Raises:
        ValueError: If scikit-image is not installed.
    """
    skeletonize = _morphology().skeletonize
    checks.shapes(predicted=(predicted, "H W"), truth=(truth, "H W"))
    predicted = np.asarray(checks.as_mask("predicted", predicted))
    truth = np.asarray(checks.as_mask("truth", truth))
    if not predicted.any() and not truth.any():
        return float("nan")
    if not predicted.any() or not truth.any():
        return 0.0
    lines = skeletonize(predicted), skeletonize(truth)
    precision = (lines[0] & truth).sum() / lines[0].sum()
    recall = (lines[1] & predicted).sum() / lines[1].sum()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def centerline_dice(
    classes: Sequence[str], *, ignore_background: bool = True
) -> MetricFn:
    """Builds the centerline Dice of each class from one logit map per image.

    Skeletons are computed on the host, once per batch, outside the step. Invalid pixels
    are background in labels and prediction.

    Args:
        classes: C distinct names, one for each channel of the logits.
        ignore_background: Whether class 0 is background and not scored.

    Returns:
        `(logits, batch) -> OnHost` with `mean_cl_dice_per_image`, the mean over images
        of the mean over the classes in that image, and `cl_dice_per_image/<name>`. A
        class absent from truth and prediction has no score and is left out.

    Raises:
        ValueError: As for `semantic`; if there is no class to score, or scikit-image is
            not installed.
    """
    _morphology()  # A missing package is reported before training, not after it.
    classes = common.check_distinct(classes)
    kept = common.scored_classes(classes, ignore_background=ignore_background)

    def gather(logits: Logits, batch: Batch) -> Mapping[str, Any]:
        predicted, _, _, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        return {"predicted": predicted, WRONG: batch[WRONG]}

    def make(arrays: Mapping[str, Any], batch: Batch) -> PerImage:
        a, b = np.asarray(arrays["predicted"]), np.asarray(batch["label"])
        weighted = np.asarray(batch["weight"])[:, None, None] > 0
        valid = np.asarray(checks.as_mask("valid", batch["valid"])) & weighted
        scores = np.array(
            [
                [cl_dice((p == c) & v, (t == c) & v) for c, _ in kept]
                for p, t, v in zip(a, b, valid, strict=True)
            ]
        ).reshape(-1, len(kept))
        named = {"mean_cl_dice_per_image": mean_over_classes(scores)}
        for i, (_, name) in enumerate(kept):
            named[f"cl_dice_per_image/{name}"] = scores[:, i]
        return PerImage.from_batch(named, {**batch, WRONG: arrays[WRONG]})

    return on_host(gather, make)


def _morphology() -> Any:
    return optional.require(
        "skimage.morphology",
        extra="skeleton",
        purpose="centerline Dice",
        package="scikit-image",
    )
