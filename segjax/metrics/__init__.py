"""Metrics: `from_batch` on the device, `merge` and `compute` on the host."""

from segjax.metrics.adaptive_calibration import (
    AdaptiveCalibration,
    adaptive_calibration,
)
from segjax.metrics.aggregated_jaccard import AggregatedJaccard
from segjax.metrics.average_precision import AveragePrecision
from segjax.metrics.betti import betti_numbers, betti_scores
from segjax.metrics.boundary_iou import BoundaryIoU, boundary_iou, mask_to_boundary
from segjax.metrics.calibration import Calibration, calibration
from segjax.metrics.cl_dice import centerline_dice, cl_dice
from segjax.metrics.classwise_calibration import (
    ClasswiseCalibration,
    classwise_calibration,
)
from segjax.metrics.combine import Combined, OnHost, combine, on_host, with_batch
from segjax.metrics.confusion import Confusion, f_beta, semantic
from segjax.metrics.contingency import connected_components
from segjax.metrics.detections import detections
from segjax.metrics.differences import (
    Difference,
    Test,
    best_group,
    corrected_differences,
    paired_difference,
    welch_difference,
)
from segjax.metrics.edges import EdgeScores, edges, match_edges
from segjax.metrics.image_confusion import ImageConfusion, semantic_per_image
from segjax.metrics.lesions import LesionDetection
from segjax.metrics.matching import Matching
from segjax.metrics.mean import Mean
from segjax.metrics.objects import objects, of_id_maps, regions
from segjax.metrics.panoptic import Panoptic
from segjax.metrics.partition import partition_errors, partition_scores
from segjax.metrics.rand import RandCurve, best_threshold_rand, rand_scores, v_rand
from segjax.metrics.ranking import Ranking, ranking
from segjax.metrics.resample import metric_differences, metric_intervals
from segjax.metrics.rows import PerImage, Rows
from segjax.metrics.statistics import (
    Comparison,
    Interval,
    compare,
    holm,
    mean_interval,
)
from segjax.metrics.surface import surface
from segjax.metrics.surface_length import surface_scores_by_length
from segjax.metrics.surface_scores import (
    directed_surface_scores,
    outline,
    surface_scores,
)

__all__ = [
    "AdaptiveCalibration",
    "AggregatedJaccard",
    "AveragePrecision",
    "BoundaryIoU",
    "Calibration",
    "ClasswiseCalibration",
    "Combined",
    "Comparison",
    "Confusion",
    "Difference",
    "EdgeScores",
    "ImageConfusion",
    "Interval",
    "LesionDetection",
    "Matching",
    "Mean",
    "OnHost",
    "Panoptic",
    "PerImage",
    "RandCurve",
    "Ranking",
    "Rows",
    "Test",
    "adaptive_calibration",
    "best_group",
    "best_threshold_rand",
    "betti_numbers",
    "betti_scores",
    "boundary_iou",
    "calibration",
    "centerline_dice",
    "cl_dice",
    "classwise_calibration",
    "combine",
    "compare",
    "connected_components",
    "corrected_differences",
    "detections",
    "directed_surface_scores",
    "edges",
    "f_beta",
    "holm",
    "mask_to_boundary",
    "match_edges",
    "mean_interval",
    "metric_differences",
    "metric_intervals",
    "objects",
    "of_id_maps",
    "on_host",
    "outline",
    "paired_difference",
    "partition_errors",
    "partition_scores",
    "rand_scores",
    "ranking",
    "regions",
    "semantic",
    "semantic_per_image",
    "surface",
    "surface_scores",
    "surface_scores_by_length",
    "v_rand",
    "welch_difference",
    "with_batch",
]
