"""An image that memory is not enough for is one line; the others are predicted."""

import jax
import numpy as np
import pytest
from PIL import Image

from segjax import inference
from tests.cli.conftest import data_dir as data_dir
from tests.cli.conftest import run as run
from tests.cli.conftest import script as script
from tests.cli.conftest import segjax as segjax
from tests.cli.conftest import source as source

LARGE = 100


@pytest.fixture
def small_memory(monkeypatch):
    """A device that refuses large images, as XLA says it; a real one may just end."""
    made = inference.Predictor.__init__

    def init(self, *args, **options):
        made(self, *args, **options)
        program = self._program

        def limited(variables, image, size):
            if image.shape[1] >= LARGE:
                text = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."
                raise jax.errors.JaxRuntimeError(text)
            return program(variables, image, size)

        self._program = limited

    monkeypatch.setattr(inference.Predictor, "__init__", init)


def test_too_large_an_image_is_one_line(small_memory, segjax, run, tmp_path):
    sides = {"a": 16, "b": 200, "c": 20}
    for name, side in sides.items():
        image = Image.fromarray(np.zeros((side, side, 3), np.uint8))
        image.save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    result = segjax("predict", run, tmp_path, "--out", out)
    assert result.code == 1
    (line,) = [x for x in result.err.splitlines() if x]
    assert line.startswith(f"error: {tmp_path / 'b.png'} cannot be predicted: ")
    assert "more memory than is available" in line
    assert {p.name[0] for p in out.glob("*.png")} == {"a", "c"}
    assert "2 label maps" in result.out
