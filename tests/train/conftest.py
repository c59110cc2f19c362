"""Fixtures of the training tests."""

import numpy as np
import pytest

from segjax import losses


@pytest.fixture(scope="session")
def batch():
    """Eight images with uneven weights and ignored pixels."""
    rng = np.random.default_rng(5)
    return {
        "image": rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
        "label": rng.integers(0, 3, (8, 16, 16)).astype(np.int32),
        "valid": rng.random((8, 16, 16)) > 0.2,
        "weight": np.array([1, 0, 1, 1, 0, 1, 1, 0], np.float32),
        "index": np.arange(8, dtype=np.int32),
    }


@pytest.fixture(scope="session")
def objective():
    return losses.semantic(ce=(0.5, losses.cross_entropy), dice=(1.0, losses.soft_dice))
