"""Means and differences of groups of runs, over seeds and over images."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from segjax import metrics
from segjax.errors import UserError
from segjax.run_folder import results

Groups = Mapping[str, Sequence[results.RunResult]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One group.

    Attributes:
        name: Of the group.
        values: The score of each seed or image; NaN where it has none.
        mean: Of the values, with its interval.
        std: With N - 1 in the denominator.
        difference: To the first group; None for that group itself.
        is_best: Whether it is better than every other group.
    """

    name: str
    values: np.ndarray
    mean: metrics.Interval
    std: float
    difference: metrics.Difference | None
    is_best: bool


@dataclasses.dataclass(frozen=True)
class Compared:
    """All groups by one metric.

    Attributes:
        metric: Its name.
        split: The split that was scored.
        lower_is_better: Of the metric.
        rows: One a group.
        over: What the values of a row are of: "seeds" or "images".
    """

    metric: str
    split: str
    lower_is_better: bool
    rows: Sequence[Row]
    over: str = "seeds"

    @property
    def title(self) -> str:
        """The metric, which direction is better, and the split."""
        better = "lower" if self.lower_is_better else "higher"
        over = ", over images" if self.over == "images" else ""
        return f"{self.metric} ({better} is better), {self.split}{over}"

    @property
    def panel(self) -> dict[str, tuple[np.ndarray, float, float, float]]:
        """By group: the scores of its seeds, their mean and its interval."""
        return {
            row.name: (
                row.values[~np.isnan(row.values)],
                *(row.mean.value, row.mean.low, row.mean.high),
            )
            for row in self.rows
        }


def compared(
    groups: Groups, metric: str, test: metrics.Test, *, lower_is_better: bool
) -> Compared:
    """Computes means, intervals and differences of one metric.

    Args:
        groups: Runs by the name of their group, as `results.grouped` has them.
        metric: The metric.
        test: Of differences.
        lower_is_better: Of the metric.
    """
    values = {
        name: np.array([run.metrics.get(metric, math.nan) for run in group], np.float64)
        for name, group in groups.items()
    }
    split = next(iter(groups.values()))[0].split
    return Compared(
        metric, split, lower_is_better, _rows(values, test, lower_is_better)
    )


def compared_over_images(
    groups: Groups, metric: str, *, lower_is_better: bool
) -> Compared:
    """The same, of each image's mean score over the seeds of a group, paired by image.

    Args:
        groups: Runs by the name of their group.
        metric: A score of images.
        lower_is_better: Of the metric.

    Raises:
        ValueError: If runs have no scores of images, or of other images.
    """
    scores = {
        run.folder: results.image_scores(run, metric)
        for group in groups.values()
        for run in group
    }
    _check_images(groups, scores)
    found = {name: _image_means(group, scores) for name, group in groups.items()}
    images = sorted(next(iter(found.values())))
    values = {
        name: np.array([means[image] for image in images])
        for name, means in found.items()
    }
    rows = _rows(values, metrics.paired_difference, lower_is_better)
    split = next(iter(groups.values()))[0].split
    return Compared(metric, split, lower_is_better, rows, over="images")


def _check_images(
    groups: Groups, scores: Mapping[pathlib.Path, Mapping[int, float]]
) -> None:
    """Checks that all groups have the same folds, and all runs of a fold its images."""
    firsts: dict[int | None, Mapping[int, float]] = {}
    folds = [{run.fold for run in group} for group in groups.values()]
    for group, own in zip(groups.values(), folds, strict=True):
        if own != folds[0]:
            raise UserError(
                f"{group[0].folder} is of a group with other folds than the first one. "
                f"Train the missing folds, or leave --images out."
            )
        for run in group:
            one = scores[run.folder]
            first = firsts.setdefault(run.fold, one)
            if one.keys() != first.keys():
                raise UserError(
                    f"{run.folder} was evaluated on {len(one)} images, others on "
                    f"{len(first)}. Evaluate all runs again: segjax evaluate RUN."
                )


def _image_means(
    group: Sequence[results.RunResult],
    scores: Mapping[pathlib.Path, Mapping[int, float]],
) -> dict[tuple[int, int], float]:
    """The mean over seeds of each image's score, by fold and position in its split."""
    found: dict[tuple[int, int], list[float]] = {}
    for run in group:
        for image, score in scores[run.folder].items():
            found.setdefault((run.pair[1], image), []).append(score)
    return {image: float(np.mean(x)) for image, x in found.items()}


def _rows(
    values: Mapping[str, np.ndarray], test: metrics.Test, lower_is_better: bool
) -> list[Row]:
    groups = list(values.values())
    to_first = [(i, 0) for i in range(1, len(groups))]
    differences = metrics.corrected_differences(groups, to_first, test)
    best = metrics.best_group(groups, test, lower_is_better=lower_is_better)
    rows = []
    for i, (name, x) in enumerate(values.items()):
        seen = x[~np.isnan(x)]
        std = float(seen.std(ddof=1)) if seen.size > 1 else math.nan
        difference = differences[i - 1] if i else None
        mean = metrics.mean_interval(x)
        rows.append(Row(name, x, mean, std, difference, i == best))
    return rows
