"""`segjax calibrate`, and predictions with its temperature."""

import json

import numpy as np
import pytest
from PIL import Image

import segjax as package
from segjax import inference
from tests.cli.conftest import expect_one_error_line


def test_calibrate_then_predict(segjax, run, source, tmp_path):
    photo = sorted((source / "images").iterdir())[0]
    args = ("predict", run, photo, "--probabilities", "--out", tmp_path / "out")
    (run / "calibration.json").unlink(missing_ok=True)
    expect_one_error_line(segjax(*args, "--calibrated"), "segjax calibrate")
    got = segjax("calibrate", run)
    assert got.code == 0, got.err
    found = json.loads((run / "calibration.json").read_text())
    assert found["fitted_on"] == "validation"
    assert f"{found['temperature']:.3f}" in got.out
    pair = found["splits"]["validation"]
    # The fit minimizes the likelihood, not the error, of which it is a bound.
    assert pair["after"]["ece"] < pair["before"]["ece"] + 0.01
    with Image.open(run / "calibration.png") as picture:
        assert picture.size[1] > 300
    assert "reliability diagrams" in (run / "report.html").read_text()
    assert segjax(*args, "--calibrated").code == 0
    model = package.load(run)
    tempered = inference.temperature(model.probabilities, found["temperature"])
    want = tempered(np.asarray(Image.open(photo))[None])[0]
    with np.load(tmp_path / f"out/{photo.stem}_probabilities.npz") as made:
        np.testing.assert_allclose(made["probabilities"], want, atol=2e-3)
    expect_one_error_line(segjax("calibrate", run, "--split", "nowhere"), "got nowhere")
    assert found["temperature"] != pytest.approx(1, abs=1e-4)
