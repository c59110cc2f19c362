"""What to try when a class was not learned."""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.train.metric_lines import lagging_class

_FLAGS = {
    "resize": "--resize N (coarser: a crop holds more of the image)",
    "size": "--size N (larger crops)",
    "class_weights": "--class-weights (more for this class)",
    "steps": "--steps N (longer)",
}


def lines(
    result: Mapping[str, Any], keywords: Mapping[str, Any], run: pathlib.Path
) -> list[str]:
    """Returns lines about the worst class of a finished run; none if it was learned.

    Args:
        result: Content of `result.json`.
        keywords: Flags of the experiment, of which some are suggested.
        run: The run folder.
    """
    found = lagging_class(result["metrics"])
    if found is None:
        return []
    known = [text for name, text in _FLAGS.items() if name in keywords]
    ways = known or ["larger crops, weights for the classes, or more updates"]
    return [
        f"Not learned: {found} ({result['split']}). See in {run / 'report.html'} "
        f"whether all masks have it. What may help: {'; '.join(ways)}."
    ]
