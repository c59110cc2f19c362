"""Image segmentation in JAX as pure functions.

Subpackages load when first used, so that `import segjax` stays light.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segjax import cli as cli
    from segjax import data as data
    from segjax import inference as inference
    from segjax import losses as losses
    from segjax import metrics as metrics
    from segjax import models as models
    from segjax import ops as ops
    from segjax import train as train
    from segjax import typing as typing
    from segjax import viz as viz

__version__ = "0.1.0"

_SUBPACKAGES = frozenset(
    "cli data inference losses metrics models ops train typing viz".split()
)


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"segjax.{name}")
    raise AttributeError(f"module 'segjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
