"""Metrics: `from_batch` on the device, `merge` and `compute` on the host."""

from segjax.metrics.confusion import Confusion as Confusion
from segjax.metrics.confusion import semantic as semantic
from segjax.metrics.mean import Mean as Mean
