"""Prediction of images of any size, with few compiled programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import inference, models, ops
from segjax.compiler import compiler_options
from segjax.forward import make_forward


def variables_of(model, side=32, channels=3):
    image = np.zeros((1, side, side, channels), np.float32)
    return jax.jit(model.init)(jax.random.key(0), image)


def image_of(*size, channels=3, dtype=np.uint8):
    high = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, high, (*size, channels)).astype(dtype)


class Counted:
    """A model that counts its traces."""

    def __init__(self, model):
        self.model, self.shapes = model, []

    def apply(self, variables, image, **options):
        self.shapes.append(image.shape)
        return self.model.apply(variables, image, **options)


@pytest.fixture(scope="module")
def cnn():
    model = models.SimpleCNN(num_classes=3)
    variables = variables_of(model)
    return model, variables, inference.make_predictor(make_forward(model), variables)


@pytest.mark.parametrize(
    "preprocess", [ops.UnitRange(), ops.normalize((0.5,), (0.2,))], ids=repr
)
def test_bit_for_bit_where_nothing_is_padded(preprocess):
    model = models.UNet(num_classes=3, widths=(4, 8))
    variables = variables_of(model)
    forward = make_forward(model, preprocess=preprocess)
    image = image_of(32, 64)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def whole(variables, batch):
        return jax.nn.softmax(forward(variables, batch)[0])

    probs = inference.make_predictor(forward, variables)(image)
    np.testing.assert_array_equal(probs, whole(variables, {"image": image[None]})[0])
    # And by hand: the network on preprocessed pixels.
    logits = model.apply(variables, preprocess(image[None]))[0]
    np.testing.assert_allclose(probs, jax.nn.softmax(logits), atol=5e-6)


@pytest.mark.parametrize("size", [(97, 61), (1, 1), (1, 40), (33, 32)])
def test_any_size(cnn, size):
    _, _, predict = cnn
    probs = predict(image_of(*size))
    assert probs.shape == (*size, 3)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)


def test_padding_does_not_reach_the_inside(cnn):
    """Two 3x3 convolutions reach 2 pixels: farther inside, nothing changes."""
    _, _, predict = cnn
    whole = image_of(64, 64)
    part = predict(whole[:50, :41])
    np.testing.assert_allclose(part[:48, :39], predict(whole)[:48, :39], atol=1e-6)


def test_a_model_that_trims_its_border_labels_every_pixel():
    """Valid padding: the overlap-tile of the U-Net paper."""
    model = models.UNet(num_classes=2, widths=(4, 8), padding="valid")
    variables = variables_of(model, 64)
    predict = inference.make_predictor(make_forward(model), variables, multiple=8)
    image = image_of(40, 31)
    probs = predict(image)
    assert probs.shape == (40, 31, 2)
    # 16 pixels go in all, 8 on each side: the same by hand.
    wide = np.pad(image, ((8, 8), (8, 9), (0, 0)), "reflect") / np.float32(255)
    by_hand = jax.nn.softmax(model.apply(variables, wide[None]))[0]
    assert by_hand.shape == (40, 32, 2)
    np.testing.assert_allclose(probs, by_hand[:, :31], atol=1e-5)


def test_sigmoid_for_classes_that_overlap(cnn):
    model, variables, _ = cnn
    predict = inference.make_predictor(
        make_forward(model), variables, activation=jax.nn.sigmoid
    )
    image = image_of(32, 32)
    logits = model.apply(variables, image[None] / np.float32(255))[0]
    np.testing.assert_allclose(predict(image), jax.nn.sigmoid(logits), atol=1e-6)


def test_a_thousand_predictions_of_one_size_trace_once():
    model = models.SimpleCNN(num_classes=2, width=2)
    counted = Counted(model)
    predict = inference.make_predictor(make_forward(counted), variables_of(model))
    image = image_of(9, 17)
    for _ in range(1000):
        predict(image)
    assert counted.shapes == [(1, 32, 32, 3)]


def random_sizes(count=500):
    return [tuple(s) for s in np.random.default_rng(0).integers(50, 601, (count, 2))]


class Constant:
    """A model that is fast to compile."""

    margin = 0

    def __init__(self):
        self.shapes = []

    def apply(self, variables, image, **options):
        self.shapes.append(image.shape)
        return jnp.mean(image, axis=-1, keepdims=True) + jnp.zeros((1, 1, 1, 2))


ORDERS = {
    "random": lambda x: x,
    "rising": lambda x: sorted(x[:80]),
    "falling": lambda x: sorted(x[:80])[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
def test_single_calls_of_many_sizes_compile_few_programs(order):
    model = Constant()
    predict = inference.make_predictor(make_forward(model), {}, max_shapes=8)
    sizes = ORDERS[order](random_sizes())
    for size in sizes:
        assert predict(np.zeros((*size, 1), np.uint8)).shape == (*size, 2)
    assert len(model.shapes) == len(set(model.shapes)) <= 8
    assert model.shapes[0][1:3] == tuple(ops.round_up(int(n), 32) for n in sizes[0])


def test_known_sizes_compile_few_programs_in_their_order():
    model = Constant()
    predict = inference.make_predictor(make_forward(model), {}, max_shapes=8)
    sizes = [(int(h), int(w)) for h, w in random_sizes()]

    def read(i):
        return np.full((*sizes[i], 1), i % 256, np.uint8)

    made = list(predict.many(range(len(sizes)), sizes, read, batch_size=4))
    assert len(model.shapes) == len(set(model.shapes)) <= 8
    assert {shape[0] for shape in model.shapes} == {4}
    assert [output.shape[:2] for _, output in made] == sizes
    assert [image[0, 0, 0] for image, _ in made] == [i % 256 for i in range(len(sizes))]
    predict(np.zeros((60, 500, 1), np.uint8))  # Fits into one of them.
    assert len(set(shape[1:] for shape in model.shapes)) <= 8


def test_a_batch_gives_what_single_calls_give(cnn):
    model, variables, _ = cnn
    images = [image_of(20 + i, 30) for i in range(5)]
    predict = inference.make_predictor(make_forward(model), variables)
    alone = [predict(image) for image in images]
    together = predict.many(
        images, [x.shape[:2] for x in images], np.asarray, batch_size=2
    )
    for want, (_, got) in zip(alone, together, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_more_shapes_than_before_where_all_were_used():
    model = Constant()
    predict = inference.make_predictor(make_forward(model), {}, max_shapes=2)
    for side in (300, 32, 64, 200):  # The first is exact and holds the others.
        predict(np.zeros((side, side, 1), np.uint8))
    assert [s[1] for s in model.shapes] == [320]
    images = [np.zeros((side, side, 1), np.uint8) for side in (32, 64, 400, 500)]
    list(predict.many(images, [x.shape[:2] for x in images], np.asarray, batch_size=1))
    assert [s[1] for s in model.shapes] == [320, 512]


def test_messages(cnn):
    model, variables, _ = cnn
    with pytest.raises(ValueError, match="at least 1, got 32 and 0"):
        inference.make_predictor(make_forward(model), variables, max_shapes=0)

    class Two:
        def apply(self, variables, image, **options):
            return image, image

    with pytest.raises(ValueError, match=r"returns logits .* got tuple"):
        inference.make_predictor(make_forward(Two()), {})(image_of(4, 4))
