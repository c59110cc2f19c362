"""Messages of `ops` that have no other test."""

import numpy as np
import pytest

from segjax import ops


def test_normalize_message():
    with pytest.raises(ValueError, match=r"equally many means and .*got 2 and 1"):
        ops.normalize((0.5, 0.5), 0.2)


def test_center_crop_message():
    with pytest.raises(ValueError, match="at least 4x4 pixels, got 3x5"):
        ops.center_crop(np.zeros((1, 3, 5)), (4, 4))
