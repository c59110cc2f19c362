"""Evaluations as lines for the terminal."""

import math
import re
from collections.abc import Mapping

_CLASS_SCORES = {"iou": "mean_iou", "mask_ap": "mask_ap", "box_ap": "box_ap"}
"""Scores of single classes, and their means, in the order of preference."""
_LAGGING = 0.1
"""A class below this fraction of the mean is named."""


def metrics_line(metrics: Mapping[str, float], *, monitor: str) -> str:
    """Formats an evaluation, such as `accuracy 78%  mean IoU 0.410  cat 0.00: rare`.

    Args:
        metrics: Those of an evaluation.
        monitor: The metric that picks the best checkpoint; always shown.

    Returns:
        The line; at its end, the class that `lagging_class` finds.
    """
    parts = []
    if "pixel_accuracy" in metrics:
        parts.append(f"accuracy {metrics['pixel_accuracy']:.0%}")
    names = [n for n in ("mean_iou", monitor) if n in metrics]
    parts += [f"{_words(n)} {metrics[n]:.3f}" for n in dict.fromkeys(names)]
    return "  ".join([*parts, lagging_class(metrics) or ""]).rstrip()


def lagging_class(metrics: Mapping[str, float]) -> str | None:
    """Describes the class with the lowest score if that is far below the mean.

    Args:
        metrics: Those of an evaluation, with `iou/<class>` and `mean_iou`, or those of
            average precision.

    Returns:
        Such as "crop 0.00: never predicted"; None if all classes have at least a tenth
        of the mean, or the metrics have no scores of classes. A class absent from truth
        and prediction is not considered.
    """
    for score, mean in _CLASS_SCORES.items():
        scores = {
            name.partition("/")[2]: value
            for name, value in metrics.items()
            if name.startswith(f"{score}/") and math.isfinite(value)
        }
        if not scores or not math.isfinite(metrics.get(mean, math.nan)):
            continue
        worst = min(scores, key=scores.__getitem__)
        if scores[worst] >= _LAGGING * metrics[mean]:
            return None
        never = ": never predicted" if _is_never_predicted(metrics, worst) else ""
        return f"{worst} {scores[worst]:.2f}{never}"
    return None


def _is_never_predicted(metrics: Mapping[str, float], name: str) -> bool:
    """Whether no pixel was predicted as a class: neither rightly nor wrongly."""
    rightly = metrics.get(f"recall/{name}", math.nan) > 0
    return not rightly and metrics.get(f"specificity/{name}") == 1.0


def split_title(split: str) -> str:
    """Returns a split's name for lines and tables, and whether it is no test."""
    said = {
        "train": "train (the images of training, no test)",
        "all": "all (with the images of training, no test)",
    }
    return said.get(split, split)


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("iou", "IoU").replace("/", " ")
    return re.sub(r"\bap(?=\d*\b)", "AP", words)
