"""Metrics: `from_batch` on the device, `merge` and `compute` on the host."""

from segjax.metrics.boundary_iou import BoundaryIoU as BoundaryIoU
from segjax.metrics.boundary_iou import band as band
from segjax.metrics.boundary_iou import boundary_iou as boundary_iou
from segjax.metrics.calibration import Calibration as Calibration
from segjax.metrics.calibration import calibration as calibration
from segjax.metrics.combine import Combined as Combined
from segjax.metrics.combine import OnHost as OnHost
from segjax.metrics.combine import combine as combine
from segjax.metrics.combine import on_host as on_host
from segjax.metrics.confusion import Confusion as Confusion
from segjax.metrics.confusion import semantic as semantic
from segjax.metrics.image_confusion import ImageConfusion as ImageConfusion
from segjax.metrics.image_confusion import semantic_per_image as semantic_per_image
from segjax.metrics.mean import Mean as Mean
from segjax.metrics.ranking import Ranking as Ranking
from segjax.metrics.ranking import ranking as ranking
from segjax.metrics.rows import PerImage as PerImage
from segjax.metrics.rows import Rows as Rows
from segjax.metrics.surface import outline as outline
from segjax.metrics.surface import surface as surface
from segjax.metrics.surface import surface_scores as surface_scores
