import functools
import json

import numpy as np
import pytest

import segjax
from segjax import export, models
from segjax.forward import Forward
from tests.inference.test_load import pixels_of, write_run

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Those of jax2onnx and onnx.
]


@pytest.fixture
def runtime():
    pytest.importorskip("jax2onnx", reason='needs pip install "segjax[onnx]"')
    return pytest.importorskip("onnxruntime", reason='needs "segjax[onnx]"')


MODELS = {
    "simple_cnn": models.SimpleCNN(num_classes=3, width=4),
    "unet": models.UNet(3, widths=(4, 8), norm=models.layers.batch_norm),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_onnx(tmp_path, runtime, name):
    task = "multilabel" if name == "unet" else "semantic"
    write_run(tmp_path / "run", Forward(MODELS[name]), task=task)
    model, path = segjax.load(tmp_path / "run"), tmp_path / "x.onnx"
    worst = export.save_onnx(model, path, size=(32, 16), batch_size=2)
    assert worst <= 1e-4
    session = runtime.InferenceSession(str(path))
    image = pixels_of(32, 16)
    probs, labels = session.run(
        ["probabilities", "labels"], {"image": image[None][[0, 0]]}
    )
    want = model.predict(image)
    np.testing.assert_allclose(probs[1], want.probabilities, atol=1e-4)
    assert (labels[1] != want.labels).mean() < 0.01
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["background", "square", "bar"]


def test_a_wrong_file_is_refused_with_the_difference(tmp_path, runtime, monkeypatch):
    import jax2onnx

    real = jax2onnx.to_onnx

    def wrong(program, *args, **options):
        def shifted(image):
            probs, labels = program(image)
            return probs + 0.01, labels

        return real(shifted, *args, **options)

    monkeypatch.setattr(jax2onnx, "to_onnx", wrong)
    write_run(tmp_path / "run", Forward(MODELS["simple_cnn"]))
    path = tmp_path / "x.onnx"
    with pytest.raises(ValueError, match=r"differ from JAX's by 0\.01, needed at most"):
        export.save_onnx(segjax.load(tmp_path / "run"), path, size=(16, 16))
    assert not path.exists()


def test_what_onnx_cannot_hold_is_one_line(tmp_path, runtime):
    write_run(tmp_path / "run", Forward(MODELS["simple_cnn"]))
    model = segjax.load(tmp_path / "run")
    save = functools.partial(export.save_onnx, model, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"multiples of 16.*got \[20, 16\]"):
        save(size=(20, 16))
    valid = models.UNet(3, widths=(4, 4), padding="valid")
    write_run(tmp_path / "valid", Forward(valid))
    with pytest.raises(ValueError, match="do not crop their border"):
        export.save_onnx(segjax.load(tmp_path / "valid"), tmp_path / "x", size=(16, 16))


def test_without_jax2onnx(tmp_path, without):
    without("jax2onnx")
    write_run(tmp_path / "run", Forward(MODELS["simple_cnn"]))
    with pytest.raises(ValueError, match=r'pip install "segjax\[onnx\]"'):
        export.save_onnx(segjax.load(tmp_path / "run"), tmp_path / "x", size=(16, 16))
