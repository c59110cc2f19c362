"""Surface distances between truth and prediction, per image and class."""

from collections.abc import Sequence

from segjax.metrics import common
from segjax.metrics.rows import PerImage
from segjax.metrics.surface_scores import surface_scores
from segjax.typing import Batch, Logits, MetricFn


def surface(
    classes: Sequence[str],
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0),
    ignore_background: bool = True,
) -> MetricFn:
    """Builds the surface distances of each class from one logit map per image.

    Runs on the device. Invalid pixels and pixels outside the image are background in
    labels and prediction. If only one of them is empty, distances are the diagonal of
    the box around the valid pixels.

    Args:
        classes: C distinct names, one for each channel of the logits.
        tolerance: For `nsd` and `boundary_f1`, in the unit of `spacing`.
        spacing: (height, width) of a pixel.
        ignore_background: Whether class 0 is background and not scored.

    Returns:
        `(logits, batch) -> PerImage` with `mean_hd_per_image`, the mean over images
        of the mean over the classes in that image, and `hd_per_image/<name>`; likewise
        `hd95`, `assd`, `nsd` and `boundary_f1`. See `surface_scores`.

    Raises:
        ValueError: As for `semantic` and `surface_scores`.
    """
    classes = common.check_distinct(classes)
    kept = common.scored_classes(classes, ignore_background=ignore_background)

    def metric(logits: Logits, batch: Batch) -> PerImage:
        predicted, labels, valid, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        extent = common.diagonal(valid, spacing=spacing)
        # One class at a time, because C distance maps may not fit in memory.
        scores = {
            name: surface_scores(
                (predicted == c) & valid,
                (labels == c) & valid,
                tolerance=tolerance,
                spacing=spacing,
                extent=extent,
            )
            for c, name in kept
        }
        return PerImage.from_batch(common.named_per_image(scores), batch)

    return metric
