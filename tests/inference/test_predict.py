"""Every pixel of an image of any size gets the label that the model gives it."""

import jax
import numpy as np
import pytest

from segjax import inference, models


def variables_of(model, side=32):
    image = np.zeros((1, side, side, 3), np.float32)
    return jax.jit(model.init)(jax.random.key(0), image)


def image_of(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def cnn():
    model = models.SimpleCNN(num_classes=3)
    variables = variables_of(model)
    return model, variables, inference.make_predictor(model.apply, variables)


def test_equals_the_model_where_nothing_is_padded(cnn):
    model, variables, predict = cnn
    image = image_of(32, 64)
    logits = model.apply(variables, image[None] / np.float32(255))[0]
    probs = predict(image)
    np.testing.assert_allclose(probs, jax.nn.softmax(logits), atol=1e-6)
    np.testing.assert_array_equal(inference.labels(probs), np.argmax(logits, axis=-1))


@pytest.mark.parametrize("size", [(97, 61), (1, 1), (1, 40), (33, 32)])
def test_any_size(cnn, size):
    _, _, predict = cnn
    probs = predict(image_of(*size))
    assert probs.shape == (*size, 3)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)


def test_padding_does_not_reach_the_inside(cnn):
    """A 3x3 and a 3x3 convolution see 2 pixels away: further in, nothing changes."""
    _, _, predict = cnn
    whole = image_of(64, 64)
    part = predict(whole[:50, :41])
    np.testing.assert_allclose(part[:48, :39], predict(whole)[:48, :39], atol=1e-6)


def test_a_model_that_trims_its_border_labels_every_pixel():
    """Valid padding: the overlap-tile of the U-Net paper."""
    model = models.UNet(num_classes=2, widths=(4, 8), padding="valid")
    variables = variables_of(model, 64)
    predict = inference.make_predictor(model.apply, variables, multiple=8)
    image = image_of(40, 31)
    probs = predict(image)
    assert probs.shape == (40, 31, 2)
    # 16 pixels go in all, 8 on each side: the same by hand.
    wide = np.pad(image, ((8, 8), (8, 9), (0, 0)), "reflect") / np.float32(255)
    by_hand = jax.nn.softmax(model.apply(variables, wide[None]))[0]
    assert by_hand.shape == (40, 32, 2)
    np.testing.assert_allclose(probs, by_hand[:, :31], atol=1e-5)


def test_images_of_similar_size_share_a_program():
    model = models.SimpleCNN(num_classes=2)
    variables = variables_of(model)
    traced = []

    def apply(*args, **options):
        traced.append(1)
        return model.apply(*args, **options)

    predict = inference.make_predictor(apply, variables)
    predict(image_of(33, 40))
    first = len(traced)
    predict(image_of(60, 64))
    # The second is looked at for its shape once more, and not compiled.
    assert len(traced) - first <= 1
