"""The forward pass: preprocessing, checks of logits and loss terms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import losses, metrics, models, ops, train
from segjax.forward import Forward, loss_terms, make_forward
from tests.scenes import CLASSES

ROWS, SIDE = 4, 8


def stored(dtype=np.uint8, channels=3, label=np.uint8):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (ROWS, SIDE, SIDE)).astype(label)
    labels[:, 0] = ops.ignore_index(label)
    return {
        "image": rng.integers(0, 200, (ROWS, SIDE, SIDE, channels)).astype(dtype),
        "label": labels,
        "weight": np.ones(ROWS, np.float32),
        "index": np.arange(ROWS, dtype=np.int32),
    }


def test_labels_become_ids_and_valid():
    for dtype in (np.uint8, np.uint16):
        batch = stored(label=dtype)
        made = make_forward(None).prepare(batch)
        assert made["label"].dtype == jnp.int32
        np.testing.assert_array_equal(made["valid"][:, 0], False)
        np.testing.assert_array_equal(made["valid"][:, 1:], True)
        np.testing.assert_array_equal(made["label"][:, 0], 0)
        np.testing.assert_array_equal(made["label"][:, 1:], batch["label"][:, 1:])
        host = make_forward(None).host_truth(batch)
        for name in ("label", "valid"):
            np.testing.assert_array_equal(host[name], made[name])
            assert host[name].dtype == made[name].dtype


def test_a_label_dtype_without_ignore_index_is_an_error():
    batch = stored() | {"label": np.zeros((ROWS, SIDE, SIDE), np.int32)}
    with pytest.raises(ValueError, match=r"uint8 .255 is ignored. or uint16"):
        make_forward(None).prepare(batch)


def test_the_same_values_in_any_dtype_are_the_same_after_a_window():
    window = ops.clip_window(20, 180)
    made = [
        make_forward(None, preprocess=window).prepare(stored(dtype))["image"]
        for dtype in (np.uint8, np.uint16, np.float32)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
    image = stored(np.float32)["image"]
    np.testing.assert_allclose(made[0], (np.clip(image, 20, 180) - 20) / 160, atol=1e-6)


def test_integers_are_scaled_by_their_dtype_and_floats_are_not():
    image = np.array([[[[0], [200]]]])
    for dtype, scale in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
        got = ops.unit_range(image.astype(dtype))
        np.testing.assert_allclose(got, image / scale, rtol=1e-6)
        shifted = ops.normalize((0.25,), (0.5,))(image.astype(dtype))
        np.testing.assert_allclose(shifted, (image / scale - 0.25) / 0.5, rtol=1e-5)
    with pytest.raises(ValueError, match="uint8, uint16 or float32, got int32"):
        ops.unit_range(image.astype(np.int32))


def test_messages_of_preprocessing():
    with pytest.raises(ValueError, match="mean for each of 3 channels, got 2"):
        ops.normalize((0, 0), (1, 1))(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="std above 0"):
        ops.normalize(0, 0)
    with pytest.raises(ValueError, match=r"low below high, got 3.0 and 3.0"):
        ops.clip_window(3, 3)
    for wrong in (lambda x: x, lambda x: jnp.mean(x, -1), lambda x: x[:, :4] / 2):
        with pytest.raises(ValueError, match="preprocess needs to return floats of"):
            make_forward(None, preprocess=wrong).prepare(stored())


class Resizes(nn.Module):
    """Logits at another size than the image, declared or not."""

    size: int
    margin: int = 0

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(3, (1, 1))(image[:, : self.size, : self.size])


def test_a_forgotten_upsampling_is_an_error():
    model = Resizes(size=SIDE // 2)
    batch = make_forward(model).prepare(stored())
    variables = model.init(jax.random.key(0), batch["image"], train=False)
    with pytest.raises(ValueError, match=r"logits of 8x8 pixels, .* got 4x4. Resize"):
        make_forward(model).apply(variables, batch, train=False)
    declared = make_forward(Resizes(size=SIDE - 4, margin=2))
    outputs, _ = declared.apply(variables, batch, train=False)
    truth = declared.truth(batch)
    assert outputs.shape[1:3] == truth["label"].shape[1:] == (4, 4)
    np.testing.assert_array_equal(truth["label"], batch["label"][:, 2:6, 2:6])
    with pytest.raises(ValueError, match="less its margin of 1"):
        make_forward(Resizes(size=4, margin=1)).apply(variables, batch, train=False)


def test_a_unet_with_valid_padding_declares_its_margin():
    model = models.UNet(num_classes=3, widths=(2, 4), padding="valid")
    image = jax.ShapeDtypeStruct((1, 40, 44, 3), jnp.float32)
    out, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), image
    )
    assert out.shape[1:3] == (40 - 2 * model.margin, 44 - 2 * model.margin)
    assert models.UNet(num_classes=3, widths=(2, 4)).margin == 0
    assert models.UNet(3, (1,) * 5, padding="valid").margin == 92  # 572 -> 388.


def test_a_term_of_the_wrong_shape_is_named():
    batch = stored()
    good = {"dice": jnp.zeros(ROWS)}
    for value, shape in (
        (jnp.zeros((ROWS, SIDE, SIDE)), r"\[4, 8, 8\]"),
        (jnp.zeros((ROWS, ROWS)), r"\[4, 4\]"),
        (jnp.zeros(()), r"\[\]"),
    ):
        with pytest.raises(ValueError, match=f'term "ce": needed shape .4., .*{shape}'):
            loss_terms(lambda o, b, v=value: good | {"ce": v}, None, batch)
    with pytest.raises(ValueError, match='term "ce": needed floats, got int32'):
        loss_terms(lambda o, b: {"ce": jnp.zeros(ROWS, int)}, None, batch)
    with pytest.raises(ValueError, match=r"needs to return .name: .B.., got"):
        loss_terms(lambda o, b: jnp.zeros(ROWS), None, batch)


@pytest.mark.parametrize("wrong", ["map", "scalar"])
def test_a_loss_that_reduces_wrongly_stops_step_and_evaluation(wrong):
    """With B = H = W, a map would silently broadcast against the weights."""

    def loss(logits, labels, valid):
        values = jnp.zeros(labels.shape) + logits.mean()
        return values if wrong == "map" else values.mean()

    batch = jax.tree.map(lambda x: np.concatenate([x, x]), stored())  # B = H = W = 8.
    model, optimizer = models.SimpleCNN(num_classes=3, width=2), optax.sgd(0.1)
    state = train.init_state(model, optimizer, seed=0, image_shape=(SIDE, SIDE, 3))

    def objective(logits, batch):
        return {"mine": loss(logits, batch["label"], batch["valid"])}

    forward = make_forward(model)
    step = train.make_train_step(forward, objective, optimizer)
    with pytest.raises(ValueError, match=r'term "mine": needed shape \[8\]'):
        jax.eval_shape(step, state, batch)
    evaluate = train.make_eval_step(forward, objective, metrics.semantic(CLASSES))
    with pytest.raises(ValueError, match=r'term "mine": needed shape \[8\]'):
        jax.eval_shape(evaluate, train.variables(state), batch)


def test_objectives_may_ask_for_the_step():
    def objective(outputs, batch, *, step):
        weight = jnp.where(step < 2, 1.0, 0.0)
        return {"early": weight * jnp.ones(len(batch["weight"]))}

    for step, want in ((0, 1.0), (5, 0.0)):
        terms = loss_terms(objective, None, stored(), step=step)
        np.testing.assert_array_equal(terms["early"], want)


class Streams(nn.Module):
    """Uses a random stream of its own, and sows."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Conv(3, (1, 1))(image)
        if train:
            x += jax.random.normal(self.make_rng("droppath"), x.shape)
        self.sow("aux", "mean", x.mean())
        self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32)).value += 1
        return x


def test_any_stream_and_any_collection():
    model, optimizer = Streams(), optax.sgd(0.1)
    state = train.init_state(model, optimizer, seed=0, image_shape=(SIDE, SIDE, 3))
    assert set(state.model_state) == {"counts"}  # Sown values are not state.
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = jax.jit(train.make_train_step(make_forward(model), objective, optimizer))
    calls = int(state.model_state["counts"]["calls"])
    one, metrics_ = step(state, stored())
    two, other = step(one, stored())
    assert int(two.model_state["counts"]["calls"]) == calls + 2
    assert metrics_["loss"] != other["loss"]


def test_preprocessing_is_in_every_path():
    """Step, evaluation and a plain call agree with a computation by hand."""
    normalize = ops.normalize((0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    model = models.SimpleCNN(num_classes=3, width=2)
    forward = Forward(model, normalize, lambda b: {"image": 2 * b["image"]})
    batch = stored()
    x = (batch["image"] / np.float32(255) - np.float32([0.2, 0.4, 0.6])) / np.float32(
        [0.1, 0.2, 0.3]
    )
    optimizer = optax.sgd(0.0)
    state = train.init_state(model, optimizer, seed=0, image_shape=(SIDE, SIDE, 3))
    variables = train.variables(state)
    want = model.apply(variables, 2 * x)
    np.testing.assert_allclose(forward(variables, batch)[0], want, rtol=1e-4, atol=1e-5)
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    label, valid = ops.split_ignored(jnp.asarray(batch["label"]))
    loss = losses.cross_entropy(want, label, valid).mean()
    _, scalars = jax.jit(train.make_train_step(forward, objective, optimizer))(
        state, batch
    )
    np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-5)
    evaluate = train.make_evaluator(
        forward, objective, metrics.semantic(CLASSES), train.make_mesh()
    )
    np.testing.assert_allclose(evaluate(state, [batch])["loss"], loss, rtol=1e-5)
