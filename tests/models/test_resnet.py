import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import interop, models
from segjax.models import layers, region

# Published numbers of torchvision's networks, less those of their classifiers.
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
}


def tiny(**attributes):
    return models.ResNet((1, 1, 1, 1), models.BasicBlock, 8, **attributes)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_and_numbers_of_parameters(name):
    model = getattr(models, name)(norm=layers.batch_norm)
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    maps = jax.eval_shape(model.apply, variables, image)
    numbers = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert numbers == PARAMETERS[name]
    assert [x.shape[1:3] for x in maps] == [
        (64 // s, 96 // s) for s in (2, 4, 8, 16, 32)
    ]


@pytest.mark.parametrize(
    ("norm", "train"),
    [
        (layers.frozen_norm, False),
        (layers.group_norm, False),
        (layers.batch_norm, True),
    ],
)
def test_padding_changes_nothing(norm, train, random_variables, rng):
    model = tiny(norm=norm)
    variables = random_variables(model)
    image = rng.normal(size=(2, 32, 64, 3)).astype(np.float32)
    padded = np.full((2, 64, 96, 3), 9, np.float32)
    padded[:, :32, :64] = image
    pixel_mask = region.top_left(np.array([[32, 64]] * 2, np.int32), 64, 96)
    apply = jax.jit(
        functools.partial(model.apply, train=train, mutable=["batch_stats"])
    )
    want, want_stats = apply(variables, image)
    got, got_stats = apply(variables, padded, pixel_mask=pixel_mask)
    # The coarsest maps have two cells, whose variance amplifies rounding.
    for x, y in zip(got[:4], want[:4], strict=True):
        assert np.std(y) > 0.1
        np.testing.assert_allclose(x[:, : y.shape[1], : y.shape[2]], y, atol=1e-3)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, got_stats, want_stats)


def test_padding_without_masks_changes_features(random_variables, rng):
    model = tiny()
    variables = random_variables(model)
    image = np.zeros((1, 64, 96, 3), np.float32)
    image[:, :32, :64] = rng.normal(size=(1, 32, 64, 3))
    apply = jax.jit(model.apply)
    want, got = apply(variables, image[:, :32, :64]), apply(variables, image)
    assert np.abs(got[3][:, :2, :4] - want[3]).max() > 0.1


def test_frozen_norms_are_not_parameters(random_variables):
    variables = random_variables(tiny())
    names = {
        collection: {path[-1].key for path, _ in jax.tree.leaves_with_path(tree)}
        for collection, tree in variables.items()
    }
    assert names == {"params": {"kernel"}, "frozen": {"scale", "bias"}}


@pytest.mark.parametrize("stages", [0, 2])
def test_frozen_stages_have_no_gradient(stages, random_variables, rng):
    model = tiny(frozen_stages=stages)
    variables = random_variables(model)
    x = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        maps = model.apply(variables | {"params": params}, x, train=True)
        return sum(jnp.sum(m**2) for m in maps)

    norms = {
        name: sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))
        for name, tree in gradient(variables["params"]).items()
    }
    frozen = {name for name, norm in norms.items() if norm == 0}
    assert frozen == ({"conv1", "layer1_0"} if stages else set())


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_features_equal_torchvision(name, torchvision_network, rng):
    import torch

    theirs = torchvision_network(name)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    image = rng.uniform(size=(1, 61, 95, 3)).astype(np.float32)
    with torch.no_grad():
        x = torch.from_numpy(image).permute(0, 3, 1, 2)
        x = theirs.relu(theirs.bn1(theirs.conv1(x)))
        want = [x.permute(0, 2, 3, 1).numpy()]
        x = theirs.maxpool(x)
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = layer(x)
            want.append(x.permute(0, 2, 3, 1).numpy())
    for norm in (layers.frozen_norm, layers.batch_norm):
        model = getattr(models, name)(norm=norm)
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
        variables = interop.from_torchvision(state, shapes, epsilon=1e-5)
        got = jax.jit(model.apply)(variables, image)
        for ours, other in zip(got, want, strict=True):
            assert np.std(other) > 0.01
            tolerance = 1e-4 * np.abs(other).max()
            np.testing.assert_allclose(ours, other, atol=tolerance)


@pytest.fixture
def torchvision_network():
    """Builds a network whose norms are not the identity."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    import torch
    from torchvision_cpu import torchvision

    def build(name):
        torch.manual_seed(0)
        network = getattr(torchvision.models, name)(weights=None).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.0)
                module.bias.data.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        return network

    yield build
    sys.path.pop(0)
