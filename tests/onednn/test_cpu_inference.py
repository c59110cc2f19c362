"""Inference by oneDNN: the same results, in parts, and when that is done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import cpu_inference, inference, losses, metrics, models, train
from segjax.cpu_inference import faster_on_cpu
from segjax.forward import Forward
from tests.onednn.machine import NEEDED

pytestmark = NEEDED
ROWS, SIDE = 6, 16


@pytest.fixture(autouse=True)
def _of_two_images(monkeypatch):
    monkeypatch.delenv("SEGJAX_ONEDNN")
    monkeypatch.setattr(cpu_inference, "cores", lambda: 2)
    monkeypatch.setattr(cpu_inference, "_PIXELS", SIDE**2)


@pytest.fixture(scope="module")
def network():
    model = models.UNet(3, (8, 16), norm=models.layers.batch_norm)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3)).astype(np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    return train.make_forward(model), variables, {"image": image}


def loops(forward, variables, batch):
    """Whether a network's inference is a loop over the batch."""
    return "scan" in str(jax.make_jaxpr(lambda b: forward(variables, b)[0])(batch))


def test_equals_the_whole_batch(network, monkeypatch):
    forward, variables, batch = network
    parts = jax.jit(faster_on_cpu(forward))
    found = parts(variables, batch)[0]
    with monkeypatch.context() as patch:
        patch.setattr(cpu_inference, "_WEIGHTS", 100)
        # A function of its own: equal ones share what is compiled.
        whole = jax.jit(lambda *at: faster_on_cpu(forward)(*at)[0])(variables, batch)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    # A norm that is multiplied into the kernel before it rounds in another way.
    np.testing.assert_allclose(found, forward(variables, batch)[0], atol=1e-5)
    for image, row in zip(batch["image"], found, strict=True):
        alone = parts(variables, {"image": image[None]})[0]
        np.testing.assert_allclose(alone[0], row, atol=1e-6)
    assert loops(parts, variables, batch)
    assert not loops(forward, variables, batch)


def test_kernels_are_packed_once_for_all_parts(network):
    forward, variables, batch = network
    run = jax.jit(lambda *at: faster_on_cpu(forward)(*at)[0])
    text = run.lower(variables, batch).compile().as_text()
    functions = text.split("\n}\n")
    convolves = [f for f in functions if "segjax_onednn_rectified" in f]
    packs = [f for f in functions if "segjax_onednn_pack" in f]
    assert len(convolves) == len(packs) == 1
    assert convolves != packs
    assert "ENTRY" in packs[0]


@pytest.mark.parametrize(("rows", "looped"), [(1, 0), (2, 0), (5, 0), (6, 1), (9, 1)])
def test_parts_divide_the_batch(network, rows, looped):
    forward, variables, batch = network
    image = np.resize(batch["image"], (rows, SIDE, SIDE, 3))
    assert loops(faster_on_cpu(forward), variables, {"image": image}) == looped


def test_whole_where_parts_are_not_faster(network, monkeypatch):
    forward, variables, batch = network
    parts = faster_on_cpu(forward)

    def training(b):
        return parts(variables, b, train=True)[0]

    assert "scan" not in str(jax.make_jaxpr(training)(batch))
    with monkeypatch.context() as patch:
        patch.setattr(cpu_inference, "_WEIGHTS", 100)
        assert not loops(parts, variables, batch)
    with monkeypatch.context() as patch:
        patch.setenv("SEGJAX_ONEDNN", "0")
        assert not loops(parts, variables, batch)
    half = train.make_forward(forward.model.clone(dtype=jnp.bfloat16))
    assert not loops(faster_on_cpu(half), variables, batch)
    sized = train.make_forward(
        Sized(), model_inputs=lambda b: {"image": b["image"], "size": b["size"]}
    )
    batch = batch | {"size": np.full((ROWS, 2), SIDE)}
    assert not loops(faster_on_cpu(sized), {"params": {}}, batch)


def test_subclasses_are_left_alone(network):
    class Doubled(Forward):
        def apply(self, *args, **options):
            outputs, state = super().apply(*args, **options)
            return 2 * outputs, state

    plain, _, _ = network
    doubled = Doubled(plain.model)
    assert faster_on_cpu(doubled) is doubled
    twice = faster_on_cpu(plain)
    assert faster_on_cpu(twice) is twice


class Sized:
    """A model with a second argument."""

    def apply(self, variables, image, size, **_):
        """[B, H, W, 3] to [B, H, W, 1]."""
        return image[..., :1] * size[0, 0]


def test_predictor_and_evaluation(network):
    forward, variables, batch = network
    predict = inference.make_predictor(forward, variables, multiple=SIDE)
    found = np.stack(predict.batch(batch["image"]))
    whole = jax.nn.softmax(forward(variables, batch)[0])
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert predict.temporary_bytes(batch["image"].shape, "uint8") < (
        0.7 * compiled_whole(forward, variables, batch).temp_size_in_bytes
    )
    labels = np.zeros((ROWS, SIDE, SIDE), np.uint8)
    batch |= {"label": labels, "weight": np.ones(ROWS, np.float32)}
    rest = {k: v for k, v in variables.items() if k != "params"}
    state = train.TrainState(0, variables["params"], rest, (), jax.random.key(0))
    evaluated = [
        train.make_evaluator(
            forward,
            losses.semantic(ce=(1.0, losses.cross_entropy)),
            metrics.semantic(("a", "b", "c")),
            train.make_mesh(jax.devices()[:n]),
        )(state, [batch])
        for n in (1, 2)
    ]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-6, nan_ok=True)


def compiled_whole(forward, variables, batch):
    """Memory of the whole batch at once."""
    program = jax.jit(lambda b: jax.nn.softmax(forward(variables, b)[0]))
    return program.lower(batch).compile().memory_analysis()
