"""Properties of every loss. A new loss is one line in LOSSES."""

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

    `best` is its least value, reached by a perfect confident prediction: a number, a
    function of (labels, valid), or None where such a prediction is not the minimum.
    `anywhere` says that a pixel counts the same wherever it stands, `symmetric` that
    a class counts the same whatever its number, and `one_hot` that the loss takes
    targets in place of labels.
    """

    loss: Callable[..., Any]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    best: float | Callable[..., Any] | None = 0.0
    anywhere: bool = True
    symmetric: bool = True
    one_hot: bool = False
    classes: int = C

    def __call__(self, logits, labels, valid, **options):
        if self.one_hot:
            ids = np.arange(self.classes, dtype=np.int32)
            labels = jnp.expand_dims(labels, -1) == ids[None, None, None, :]
        return self.loss(logits, labels, valid, **{**self.options, **options})

    def least(self, labels, valid):
        """The minimum for each image; 0 if it is not known."""
        if callable(self.best):
            return self.best(labels, valid)
        return np.full(len(labels), self.best or 0.0)


def _least_boundary(labels, valid):
    """Signed distances at the true class, summed over pixels by brute force."""
    values = []
    for label, counts in zip(labels, valid, strict=True):
        points = np.argwhere(counts)
        ids = label[counts]
        apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
        apart = np.where(ids[:, None] != ids[None], apart, np.inf).min(
            axis=1, initial=9e9
        )
        values.append(np.where(apart < 9e9, 1 - apart, 0).sum() / C / max(len(ids), 1))
    return np.asarray(values)


WEIGHTS = {"class_weights": (0.5, 1.0, 4.0)}
DISTANCES = ((0.0, 1.0, 1.0), (1.0, 0.0, 0.4), (1.0, 0.4, 0.0))

LOSSES = [
    Case(losses.cross_entropy),
    Case(losses.cross_entropy, WEIGHTS),
    Case(losses.cross_entropy, {"label_smoothing": 0.1}, best=None),
    Case(losses.balanced_cross_entropy),
    Case(losses.top_k_cross_entropy, {"fraction": 0.3}),
    Case(losses.ohem_cross_entropy, {"threshold": 0.5, "min_fraction": 0.2}),
    Case(losses.focal),
    Case(losses.focal, {"gamma": 0.5, **WEIGHTS}),
    Case(losses.focal, {"gamma": 0.0}),
    Case(losses.asymmetric_unified_focal, {"rare": (False, True, True)}),
    Case(losses.symmetric_unified_focal, {"rare": (False, True, True)}),
    Case(losses.soft_dice),
    Case(losses.soft_dice, {"smooth": 1e-3, "class_weights": (0.0, 1.0, 3.0)}),
    Case(losses.generalized_dice),
    Case(losses.log_cosh_dice),
    Case(losses.jaccard),
    Case(losses.tversky, WEIGHTS),
    Case(losses.focal_tversky),
    Case(losses.matthews),
    Case(losses.lovasz_softmax),
    Case(losses.lovasz_hinge, symmetric=False, classes=2),
    Case(losses.boundary, best=_least_boundary, anywhere=False),
    Case(losses.hausdorff, WEIGHTS, anywhere=False),
    Case(losses.soft_cldice, {"iterations": 2}, anywhere=False),
    Case(losses.sigmoid_cross_entropy, WEIGHTS, one_hot=True),
    Case(losses.sigmoid_focal, one_hot=True),
    Case(losses.sigmoid_dice, one_hot=True),
    Case(losses.sigmoid_jaccard, WEIGHTS, one_hot=True),
    Case(losses.sigmoid_tversky, one_hot=True),
    Case(losses.sigmoid_matthews, one_hot=True),
    Case(losses.sigmoid_lovasz_hinge, one_hot=True),
    Case(losses.poly_cross_entropy),
    Case(losses.symmetric_cross_entropy),
    Case(losses.soft_bootstrap_cross_entropy),
    Case(losses.hard_bootstrap_cross_entropy),
    Case(losses.soft_label_cross_entropy, one_hot=True),
    Case(losses.soft_label_dice, WEIGHTS, one_hot=True),
    Case(losses.wasserstein_dice, {"distances": DISTANCES}, symmetric=False),
    Case(losses.log_hausdorff, anywhere=False),
]


def _name(case):
    options = ",".join(f"{k}={v}" for k, v in case.options.items())
    return f"{case.loss.__name__}({options})"


@pytest.fixture(params=LOSSES, ids=_name)
def case(request):
    return request.param


@pytest.fixture
def batch(rng, case):
    """Arguments of a loss, with about a third of the pixels invalid."""
    logits = rng.normal(size=(B, H, W, case.classes), scale=2).astype(np.float32)
    labels = rng.integers(0, case.classes, (B, H, W)).astype(np.int32)
    return logits, labels, rng.random((B, H, W)) < 2 / 3


@functools.cache
def _compiled(case):
    def total(logits, labels, valid):
        values = case(logits, labels, valid)
        return jnp.sum(values), values

    return jax.jit(jax.grad(total, has_aux=True))


def _compiled_outputs(case, logits, labels, valid):
    """Values [B] and the gradient of their sum."""
    grad, values = _compiled(case)(logits, labels, valid)
    return values, grad


def _value_and_grad(case, logits, labels, valid):
    """Values and gradient in float64, on the host."""
    values, grad = _compiled_outputs(case, logits, labels, valid)
    return np.asarray(values, np.float64), np.asarray(grad, np.float64)


def _assert_finite(values, grad):
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()


def test_every_public_loss_is_in_the_list():
    public = {
        f
        for f in vars(losses).values()
        if inspect.isfunction(f)
        and {"logits", "valid"} <= set(inspect.signature(f).parameters)
    }
    assert public == {case.loss for case in LOSSES}


def test_one_value_per_image_in_float32(case, batch):
    logits, labels, valid = batch
    for dtype in (jnp.float32, jnp.bfloat16):
        values, grad = _compiled_outputs(
            case, jnp.asarray(logits, dtype), labels, valid
        )
        assert values.shape == (B,)
        assert values.dtype == jnp.float32
        assert grad.dtype == dtype
        assert (values > case.least(labels, valid)).all()
    half = jax.ShapeDtypeStruct(logits.shape, jnp.float16)
    values = jax.eval_shape(lambda x: case(x, labels, valid), half)
    assert values.dtype == jnp.float32


def test_bfloat16_logits_are_summed_in_float32(case):
    # 10,000 pixels of the same logits: a bfloat16 sum would stop at 256.
    logits = jnp.tile(jnp.asarray([1.0, 0.0, -2.0][: case.classes]), (1, 100, 100, 1))
    labels = jnp.ones((1, 100, 100), jnp.int32).at[:, 20:60, :50].set(0)
    valid = jnp.ones((1, 100, 100), bool)

    @jax.jit
    def both(logits):
        rounded = logits.astype(jnp.bfloat16)
        return case(logits, labels, valid), case(rounded, labels, valid)

    want, got = both(logits)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_gradient_equals_central_differences_in_float64(case, batch):
    with jax.enable_x64(True):
        logits, labels, valid = batch
        logits = jnp.asarray(logits, jnp.float64)
        _, grad = _value_and_grad(case, logits, labels, valid)
        step = 1e-5
        want = np.zeros(logits.size)
        for i in range(logits.size):
            bump = np.zeros(logits.size)
            bump[i] = step
            bump = bump.reshape(logits.shape)
            up, _ = _value_and_grad(case, logits + bump, labels, valid)
            down, _ = _value_and_grad(case, logits - bump, labels, valid)
            want[i] = (up - down).sum() / (2 * step)
        want = want.reshape(logits.shape)
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(grad, want, rtol=1e-7, atol=1e-9)


def test_invalid_pixels_have_no_gradient(case, batch):
    valid = batch[-1]
    _, grad = _value_and_grad(case, *batch)
    np.testing.assert_array_equal(grad[~valid], 0)
    assert np.abs(grad[valid]).max() > 0


@pytest.mark.parametrize("garbage", [255, -1, C, 2**31 - 1])
def test_labels_of_invalid_pixels_are_ignored(case, batch, garbage):
    logits, labels, valid = batch
    want = _value_and_grad(case, *batch)
    labels = np.where(valid, labels, np.int32(garbage))
    got = _value_and_grad(case, logits, labels, valid)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_logits_of_invalid_pixels_are_ignored(case, batch, garbage):
    logits, labels, valid = batch
    want = _value_and_grad(case, *batch)
    logits = np.where(valid[..., None], logits, np.float32(garbage))
    got = _value_and_grad(case, logits, labels, valid)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_huge_logits_stay_finite(case, batch, rng, dtype):
    _, labels, valid = batch
    shape = batch[0].shape
    logits = jnp.asarray(rng.choice([-1e4, 0.0, 1e4], shape), dtype)
    _assert_finite(*_value_and_grad(case, logits, labels, valid))


def test_nan_logits_are_nan(case, batch):
    logits, labels, valid = batch
    valid[0, 0, 0] = True
    want = _value_and_grad(case, logits, labels, valid)
    for channel in range(case.classes):
        broken = logits.copy()
        broken[0, 0, 0, channel] = np.nan
        values, grad = _value_and_grad(case, broken, labels, valid)
        assert np.isnan(values[0])
        np.testing.assert_array_equal(values[1:], want[0][1:])
        np.testing.assert_array_equal(grad[1:], want[1][1:])


def test_a_class_masked_by_minus_infinity_is_no_class(case, batch):
    """As -1e4, whose softmax is 0 too; torch and optax give the same finite numbers."""
    if "label_smoothing" in case.options:
        pytest.skip("some of the target is on every class")
    logits, labels, valid = batch
    last = case.classes - 1
    labels = np.minimum(labels, last - 1)
    logits[..., last] = -1e4
    want = _value_and_grad(case, logits, labels, valid)
    logits[..., last] = -np.inf
    got = _value_and_grad(case, logits, labels, valid)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integer_valid_is_a_mask(case, batch, dtype):
    logits, labels, valid = batch
    want = _value_and_grad(case, *batch)
    for value in (1, 2, 255):
        mask = valid.astype(dtype) * np.dtype(dtype).type(value)
        got = _value_and_grad(case, logits, labels, mask)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16"])
def test_labels_of_any_integer_dtype(case, batch, dtype):
    logits, labels, valid = batch
    values = case(logits, labels, valid)
    got = case(logits, labels.astype(dtype), valid)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("wrong", [-1, C, 255])
def test_known_labels_out_of_range_are_refused(case, batch, wrong):
    if case.one_hot:
        pytest.skip("takes no labels")
    logits, labels, valid = batch
    valid[0, 0, 0] = True
    labels[0, 0, 0] = wrong
    with pytest.raises(ValueError, match=rf"labels needs class ids in .* got {wrong} "):
        case(logits, labels, valid)


def test_dtypes_under_x64(case, batch):
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            shaped = jax.ShapeDtypeStruct(batch[0].shape, dtype)
            values = jax.eval_shape(lambda x: case(x, *batch[1:]), shaped)
            assert values.dtype == dtype


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_absent_class_stays_finite(case, batch, scale):
    logits, labels, valid = batch
    last = case.classes - 1
    logits[..., last] -= np.float32(2 * scale)  # The last class is not predicted ...
    labels = np.minimum(labels, last - 1)  # ... and absent from the labels.
    _assert_finite(*_value_and_grad(case, logits, labels, valid))


def test_no_valid_pixel_is_zero(case, batch):
    logits, labels, valid = batch
    valid = valid & (np.arange(B) != 1)[:, None, None]
    values, grad = _value_and_grad(case, logits, labels, valid)
    assert values[1] == 0
    assert (np.delete(values - case.least(labels, valid), 1) > 0).all()
    np.testing.assert_array_equal(grad[1], 0)


def test_one_pixel(case):
    logits = np.float32([[[[0.5, -1.0, 2.0][: case.classes]]]])
    labels = np.int32([[[1]]])
    values, grad = _value_and_grad(case, logits, labels, np.ones((1, 1, 1), bool))
    _assert_finite(values, grad)
    if case.anywhere:
        assert values > 0
        assert grad[0, 0, 0, 1] < 0  # A higher logit of the true class lowers the loss.
    else:  # One pixel has neither boundary nor center line.
        assert values == 0
        np.testing.assert_array_equal(grad, 0)


def test_perfect_prediction_is_the_minimum(case, batch, rng):
    if case.best is None:
        pytest.skip("a confident prediction is not its minimum")
    _, labels, valid = batch
    perfect = 60 * np.eye(case.classes, dtype=np.float32)[labels] - 30
    best, _ = _value_and_grad(case, perfect, labels, valid)
    np.testing.assert_allclose(best, case.least(labels, valid), atol=1e-3)
    for scale in np.repeat([0.1, 1.0, 10.0], 70):
        other = np.float32(scale * rng.normal(size=perfect.shape))
        values, _ = _value_and_grad(case, other, labels, valid)
        assert (values >= best).all()


def test_order_of_pixels_does_not_matter(case, batch, rng):
    if not case.anywhere:
        pytest.skip("a pixel's neighbors matter to it")
    order = rng.permutation(H * W)
    shuffled = [
        x.reshape(B, H * W, *x.shape[3:])[:, order].reshape(x.shape) for x in batch
    ]
    got, _ = _value_and_grad(case, *shuffled)
    np.testing.assert_allclose(got, _value_and_grad(case, *batch)[0], rtol=1e-5)


def test_order_of_classes_does_not_matter(case, batch):
    if not case.symmetric:
        pytest.skip("its classes have different parts")
    logits, labels, valid = batch
    order = np.array([2, 0, 1])  # New class k is old class order[k].
    options = {  # Options by class are permuted with the classes.
        name: tuple(value[i] for i in order)
        for name, value in case.options.items()
        if isinstance(value, tuple)
    }
    relabeled = np.argsort(order)[labels].astype(np.int32)
    moved = dataclasses.replace(case, options={**case.options, **options})
    moved = moved if options else case
    got, _ = _value_and_grad(moved, logits[..., order], relabeled, valid)
    np.testing.assert_allclose(got, _value_and_grad(case, *batch)[0], rtol=1e-5)


def test_images_are_independent(case, batch, rng):
    want = _value_and_grad(case, *batch)
    logits, labels, valid = batch
    other = (-3 * logits, rng.permutation(labels.ravel()).reshape(labels.shape), ~valid)
    for i in range(B):
        here = np.arange(B) == i
        mixed = [
            np.where(here.reshape(B, *[1] * (x.ndim - 1)), x, y)
            for x, y in zip(batch, other, strict=True)
        ]
        got = _value_and_grad(case, *mixed)
        assert not np.allclose(got[0][~here], want[0][~here])
        np.testing.assert_allclose(got[0][i], want[0][i], rtol=1e-6)
        np.testing.assert_allclose(got[1][i], want[1][i], rtol=1e-5, atol=1e-7)


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


def test_wrong_shapes_and_dtypes_are_errors_by_name(case, batch, untyped):
    logits, labels, valid = batch
    for wrong in (valid[:, 1:], valid[..., None]):
        with pytest.raises(ValueError, match=r"valid needs shape \[B, H, W\]"):
            case(logits, labels, wrong)
    with pytest.raises(ValueError, match=r"valid needs a mask of bool"):
        case(logits, labels, valid.astype(np.float32))


def test_no_images_are_no_values(case):
    logits = np.zeros((0, H, W, case.classes), np.float32)
    values = case(logits, np.zeros((0, H, W), np.int32), np.zeros((0, H, W), bool))
    assert values.shape == (0,)


def test_no_classes_are_refused(case):
    if case.loss is losses.lovasz_hinge:
        pytest.skip("needs two")
    none = dataclasses.replace(case, classes=0)
    valid = np.ones((B, H, W), bool)
    with pytest.raises(ValueError, match="logits needs a channel for each class"):
        none(np.zeros((B, H, W, 0), np.float32), np.zeros((B, H, W), np.int32), valid)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_numbers_out_of_range_are_refused(case, batch, value):
    for name, parameter in inspect.signature(case.loss).parameters.items():
        if isinstance(parameter.default, float):
            with pytest.raises(ValueError, match=rf"{name}.*(got|=).*{value}"):
                case(*batch, **{name: value})


def test_weights_below_zero_are_refused(case, batch):
    if "class_weights" not in inspect.signature(case.loss).parameters:
        pytest.skip("takes no class weights")
    for weights in ((1.0, -1.0, 1.0), (1.0, np.nan, 1.0)):
        with pytest.raises(ValueError, match="class_weights needs numbers of at least"):
            case(*batch, class_weights=weights)


def test_one_weight_per_class(case, batch):
    if "class_weights" not in inspect.signature(case.loss).parameters:
        pytest.skip("takes no class weights")
    with pytest.raises(ValueError, match=r"needs 3 numbers.*got shape \(2,\)"):
        jax.eval_shape(lambda: case(*batch, class_weights=(1.0, 2.0)))
