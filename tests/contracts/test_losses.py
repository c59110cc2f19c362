"""What every loss promises. A new loss joins with one line in LOSSES."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses

B, H, W, C = 3, 4, 5, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss under test.

    `best` is its least value, reached by a perfect confident prediction, or None
    where such a prediction is not the minimum. `anywhere` says that a pixel counts
    the same wherever it stands.
    """

    loss: Callable[..., Any]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    best: float | None = 0.0
    anywhere: bool = True

    def __call__(self, logits, labels, valid, **options):
        return self.loss(logits, labels, valid, **{**self.options, **options})


LOSSES = [
    Case(losses.cross_entropy),
    Case(losses.cross_entropy, {"class_weights": (0.5, 1.0, 4.0)}),
    Case(losses.cross_entropy, {"label_smoothing": 0.1}, best=None),
    Case(losses.focal),
    Case(losses.focal, {"gamma": 0.5, "class_weights": (0.5, 1.0, 4.0)}),
    Case(losses.focal, {"gamma": 0.0}),
    Case(losses.soft_dice),
    Case(losses.soft_dice, {"smooth": 1e-3, "class_weights": (0.0, 1.0, 3.0)}),
]


def _name(case):
    options = ",".join(f"{k}={v}" for k, v in case.options.items())
    return f"{case.loss.__name__}({options})"


@pytest.fixture(params=LOSSES, ids=_name)
def case(request):
    return request.param


@pytest.fixture
def batch(rng):
    """Arguments of a loss: about a third of the pixels do not count."""
    logits = rng.normal(size=(B, H, W, C), scale=2).astype(np.float32)
    labels = rng.integers(0, C, (B, H, W)).astype(np.int32)
    return logits, labels, rng.random((B, H, W)) < 2 / 3


@functools.cache
def _compiled(case):
    def total(logits, labels, valid):
        values = case(logits, labels, valid)
        return jnp.sum(values), values

    return jax.jit(jax.grad(total, has_aux=True))


def _value_and_grad(case, logits, labels, valid):
    """Values [B] and the gradient of their sum."""
    grad, values = _compiled(case)(logits, labels, valid)
    return np.asarray(values, np.float64), np.asarray(grad, np.float64)


def _assert_finite(values, grad):
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()


def test_every_public_loss_is_in_the_list():
    public = {
        f
        for f in vars(losses).values()
        if inspect.isfunction(f)
        and list(inspect.signature(f).parameters)[:3] == ["logits", "labels", "valid"]
    }
    assert public == {case.loss for case in LOSSES}


def test_one_value_an_image_in_float32(case, batch):
    logits, labels, valid = batch
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        values = case(jnp.asarray(logits, dtype), labels, valid)
        assert values.shape == (B,)
        assert values.dtype == jnp.float32
        assert (values > 0).all()


def test_bfloat16_logits_are_summed_in_float32(case):
    # 10,000 pixels of one class: a bfloat16 sum would stop at 256.
    logits = jnp.tile(jnp.asarray([1.0, 0.0, -2.0]), (1, 100, 100, 1))
    labels = jnp.ones((1, 100, 100), jnp.int32)
    valid = jnp.ones((1, 100, 100), bool)
    want = case(logits, labels, valid)
    got = case(logits.astype(jnp.bfloat16), labels, valid)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_gradient_equals_central_differences_in_float64(case, batch):
    with jax.enable_x64(True):
        logits, labels, valid = batch
        logits = jnp.asarray(logits, jnp.float64)
        _, grad = _value_and_grad(case, logits, labels, valid)
        step = 1e-5
        bumps = step * jnp.eye(logits.size).reshape(-1, *logits.shape)

        @jax.vmap
        def difference(bump):
            up = case(logits + bump, labels, valid)
            return jnp.sum(up - case(logits - bump, labels, valid)) / (2 * step)

        want = np.asarray(difference(bumps)).reshape(logits.shape)
        assert want.dtype == np.float64
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(grad, want, rtol=1e-7, atol=1e-9)


def test_invalid_pixels_have_no_gradient(case, batch):
    valid = batch[-1]
    _, grad = _value_and_grad(case, *batch)
    np.testing.assert_array_equal(grad[~valid], 0)
    assert np.abs(grad[valid]).max() > 0


@pytest.mark.parametrize("garbage", [255, -1, C, 2**31 - 1])
def test_labels_of_invalid_pixels_are_never_read(case, batch, garbage):
    logits, labels, valid = batch
    want = _value_and_grad(case, *batch)
    labels = np.where(valid, labels, np.int32(garbage))
    got = _value_and_grad(case, logits, labels, valid)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_logits_of_invalid_pixels_are_never_read(case, batch, garbage):
    logits, labels, valid = batch
    want = _value_and_grad(case, *batch)
    logits = np.where(valid[..., None], logits, np.float32(garbage))
    got = _value_and_grad(case, logits, labels, valid)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_huge_logits_stay_finite(case, batch, rng, dtype):
    _, labels, valid = batch
    logits = jnp.asarray(rng.choice([-1e4, 0.0, 1e4], (B, H, W, C)), dtype)
    _assert_finite(*_value_and_grad(case, logits, labels, valid))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_absent_class_stays_finite(case, batch, scale):
    logits, labels, valid = batch
    logits = logits - np.float32([0, 0, 2 * scale])  # Class 2 not predicted ...
    labels = np.minimum(labels, 1)  # ... and not there.
    _assert_finite(*_value_and_grad(case, logits, labels, valid))


def test_no_valid_pixel_is_zero(case, batch):
    logits, labels, valid = batch
    valid = valid & (np.arange(B) != 1)[:, None, None]
    values, grad = _value_and_grad(case, logits, labels, valid)
    assert values[1] == 0
    assert (np.delete(values, 1) > 0).all()
    np.testing.assert_array_equal(grad[1], 0)


def test_one_pixel(case):
    logits = np.float32([[[[0.5, -1.0, 2.0]]]])
    labels = np.int32([[[1]]])
    values, grad = _value_and_grad(case, logits, labels, np.ones((1, 1, 1), bool))
    _assert_finite(values, grad)
    assert values > 0
    assert grad[0, 0, 0, 1] < 0  # More of the true class is better.


def test_perfect_prediction_is_the_minimum(case, batch, rng):
    if case.best is None:
        pytest.skip("a confident prediction is not its minimum")
    _, labels, valid = batch
    perfect = 30 * np.eye(C, dtype=np.float32)[labels]
    best, _ = _value_and_grad(case, perfect, labels, valid)
    np.testing.assert_allclose(best, case.best, atol=1e-3)
    scales = rng.choice([0.1, 1.0, 10.0], (200, 1, 1, 1, 1))
    others = jnp.asarray(rng.normal(size=(200, B, H, W, C)) * scales, jnp.float32)
    values = jax.vmap(lambda x: case(x, labels, valid))(others)
    assert (np.asarray(values) >= best).all()


def test_order_of_pixels_does_not_matter(case, batch, rng):
    if not case.anywhere:
        pytest.skip("a pixel's neighbours matter to it")
    order = rng.permutation(H * W)
    shuffled = [
        x.reshape(B, H * W, *x.shape[3:])[:, order].reshape(x.shape) for x in batch
    ]
    np.testing.assert_allclose(case(*shuffled), case(*batch), rtol=1e-5)


def test_order_of_classes_does_not_matter(case, batch):
    logits, labels, valid = batch
    order = np.array([2, 0, 1])  # New class k is old class order[k].
    options = {}
    if "class_weights" in case.options:
        options["class_weights"] = np.float32(case.options["class_weights"])[order]
    relabelled = np.argsort(order)[labels].astype(np.int32)
    got = case(logits[..., order], relabelled, valid, **options)
    np.testing.assert_allclose(got, case(*batch), rtol=1e-5)


def test_images_do_not_see_each_other(case, batch):
    values = case(*batch)
    for i in range(B):
        alone = case(*(x[i : i + 1] for x in batch))
        np.testing.assert_allclose(alone, values[i : i + 1], rtol=1e-6)
    logits, labels, valid = batch
    grad = jax.grad(lambda x: case(x, labels, valid)[1])(jnp.asarray(logits))
    np.testing.assert_array_equal(np.delete(grad, 1, axis=0), 0)


def test_jit_vmap_and_grad_trace_once(case, batch):
    traces = 0

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0))
    def step(logits, labels, valid):
        nonlocal traces
        traces += 1
        return jax.value_and_grad(lambda x: jnp.sum(case(x, labels, valid)))(logits)

    logits, labels, valid = batch
    other = (-logits, labels[::-1], ~valid)
    stacked = [np.stack(pair) for pair in zip(batch, other, strict=True)]
    values, grads = step(*stacked)
    step(*(x[::-1] for x in stacked))
    assert traces == 1
    for i, arguments in enumerate((batch, other)):
        value, grad = _value_and_grad(case, *arguments)
        np.testing.assert_allclose(values[i], value.sum(), rtol=1e-5)
        np.testing.assert_allclose(grads[i], grad, rtol=1e-4, atol=1e-6)


def test_misshapen_arguments_are_refused(case, batch):
    logits, labels, valid = batch
    with pytest.raises(Exception, match=r"(?i)shape|valid"):
        case(logits, labels, valid[:, 1:])


def test_one_weight_a_class(case, batch):
    if "class_weights" not in inspect.signature(case.loss).parameters:
        pytest.skip("takes no class weights")
    with pytest.raises(ValueError, match=r"needs 3 numbers.*got shape \(2,\)"):
        case(*batch, class_weights=(1.0, 2.0))
