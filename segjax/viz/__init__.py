"""Visualization: overlays, curves, and the HTML report of a run."""

from segjax.viz.curves import curves, title
from segjax.viz.data_report import (
    ClassRow,
    DataReport,
    Figure,
    Table,
    render_data_report,
)
from segjax.viz.formats import format_score
from segjax.viz.groups import group_intervals
from segjax.viz.inspection import (
    Card,
    inspection_sheet,
    object_panels,
    panels,
    write_inspection,
)
from segjax.viz.instances import instance_triptych, instances, outlines
from segjax.viz.legend import legend
from segjax.viz.overlay import errors, label_to_rgb, overlay, overlay_objects
from segjax.viz.palette import palette
from segjax.viz.reliability import reliability
from segjax.viz.report import read_records, write_report
from segjax.viz.rgb import to_rgb
from segjax.viz.seeds import seed_curves
from segjax.viz.sweeps import sweep_trials
from segjax.viz.triptych import contact_sheet, triptych

__all__ = [
    "Card",
    "ClassRow",
    "DataReport",
    "Figure",
    "Table",
    "contact_sheet",
    "curves",
    "errors",
    "format_score",
    "group_intervals",
    "inspection_sheet",
    "instance_triptych",
    "instances",
    "label_to_rgb",
    "legend",
    "object_panels",
    "outlines",
    "overlay",
    "overlay_objects",
    "palette",
    "panels",
    "read_records",
    "reliability",
    "render_data_report",
    "seed_curves",
    "sweep_trials",
    "title",
    "to_rgb",
    "triptych",
    "write_inspection",
    "write_report",
]
