"""Settings of an experiment, suggested from statistics of its data."""

from segjax.planning.plan import (
    DetectorPlan,
    Plan,
    shrink_factor,
    steps_within,
    suggest,
    suggest_detector,
)
from segjax.planning.speed import flops_per_second, update_seconds
from segjax.planning.statistics import Statistics, median_image, statistics

__all__ = [
    "DetectorPlan",
    "Plan",
    "Statistics",
    "flops_per_second",
    "median_image",
    "shrink_factor",
    "statistics",
    "steps_within",
    "suggest",
    "suggest_detector",
    "update_seconds",
]
