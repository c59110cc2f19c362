"""Networks against PyTorch layers with the same random weights."""

import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from segjax import models
from segjax.models import layers

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def theirs():
    path = pathlib.Path(__file__).parents[2] / "third_party" / "torch_models.py"
    spec = importlib.util.spec_from_file_location("torch_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(rng, random_variables):
    return functools.partial(_compare, rng=rng, random_variables=random_variables)


def _compare(
    model, torch_model, *, size, rng, random_variables, train=False, atol=1e-5
):
    import torch

    image = rng.uniform(size=(2, *size, 3)).astype(np.float32)
    variables = random_variables(model)
    stats = {} if train else variables.get("batch_stats", {})
    forward = jax.jit(functools.partial(model.apply, train=train, mutable=True))
    got, _ = forward(variables, image)
    args = (variables["params"], stats) if stats else (variables["params"],)
    want = torch_model(torch.from_numpy(image).double().permute(0, 3, 1, 2), *args)
    want = want.permute(0, 2, 3, 1).numpy()
    assert got.shape == want.shape
    assert np.std(want) > 0.01  # Excludes a comparison of zeros.
    np.testing.assert_allclose(got, want, atol=atol)


@pytest.mark.parametrize("size", [(13, 8), (1, 1)])
def test_simple_cnn(theirs, compare, size):
    compare(models.SimpleCNN(2), theirs.simple_cnn, size=size)


def test_unet_transposed_with_group_norm(theirs, compare):
    model = models.UNet(3, widths=(8, 16, 32))
    run = functools.partial(theirs.unet, norm=theirs.group_norm)
    compare(model, run, size=(16, 12))


@pytest.mark.parametrize("train", [False, True])
def test_unet_bilinear_with_batch_norm(theirs, compare, train):
    model = models.UNet(
        3, widths=(4, 6, 5), norm=layers.batch_norm, upsample=layers.bilinear
    )
    run = functools.partial(
        theirs.unet, norm=theirs.batch_norm, upsample=theirs.bilinear
    )
    # Dividing by the spread of 24 values at the coarsest scale magnifies rounding.
    atol = 3e-5 if train else 1e-5
    compare(model, run, size=(16, 12), train=train, atol=atol)


def test_unet_of_the_paper(theirs, compare):
    model = models.UNet(2, widths=(4, 6, 5), norm=layers.no_norm, padding="valid")
    run = functools.partial(theirs.unet, norm=theirs.no_norm, padding="valid")
    compare(model, run, size=(44, 48))


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_fcn(theirs, compare, stride):
    model = models.FCN(5, stride=stride, widths=(4, 4, 6, 8, 8), head_width=12)
    run = functools.partial(theirs.fcn, stride=stride)
    compare(model, run, size=(64, 96))
