"""Experiments for own data, which `segjax train --data DIR` runs.

Each module has a function `experiment(*, ...) -> train.Experiment`; a run folder gets
its source with the values that were used.
"""

from segjax.experiments import mask_rcnn, unet

__all__ = ["mask_rcnn", "unet"]
