"""The peers' packages, imported only where a test or the table needs them."""

import importlib.util
import sys
import types

import numpy as np

from tests import torchvision_oracle


def torch():
    import torch

    return torch


def monai(module):
    return importlib.import_module(f"monai.{module}")


def torchmetrics():
    """Its functions; it imports torchvision, which needs our runner."""
    torchvision_oracle.load()
    return importlib.import_module("torchmetrics.functional")


def smp_losses():
    """Without the package's networks, which need timm."""
    name = "segmentation_models_pytorch"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        package = types.ModuleType(name)
        package.__path__ = spec.submodule_search_locations
        sys.modules[name] = package
    return importlib.import_module(f"{name}.losses")


def first(x):
    """[B, H, W, C] -> a tensor [B, C, H, W]."""
    return torch().from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def ids(x):
    return torch().from_numpy(np.ascontiguousarray(x)).long()


def numbers(x):
    """A tensor, or a list of them, as float64."""
    if isinstance(x, (list, tuple)):
        return np.array([numbers(y) for y in x])
    return np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64)
