import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import interop, models
from segjax.models import encoders, layers
from tests import torchvision_oracle


def tiny(output_stride=16, **attributes):
    return encoders.ResNet(
        (1, 1, 1, 1), models.BasicBlock, 4, output_stride=output_stride, **attributes
    )


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 32)])
@pytest.mark.parametrize(
    "build",
    [
        lambda: models.DeepLabV3(3, tiny(8), features=8),
        lambda: models.DeepLabV3Plus(3, tiny(), features=8, fine_features=4),
        lambda: models.DeepLabV3Plus(
            3, encoders.EfficientNetLite(width=0.125), features=8
        ),
        lambda: models.DilatedFCN(3, tiny(), features=8),
        lambda: models.FCN(3, encoder=tiny(32), head_width=8),
        lambda: models.FCN(3, encoder=encoders.vgg16(), head_width=8, stride=16),
    ],
)
def test_any_size(build, size, shapes):
    variables, logits = shapes(build(), *size)
    assert logits.shape == (2, *size, 3)
    assert logits.dtype == jnp.float32
    assert "encoder" in variables["params"]


def test_messages(shapes):
    with pytest.raises(ValueError, match="map of stride 4, got strides \\(1, 2\\)"):
        shapes(models.DeepLabV3Plus(2, encoders.ConvEncoder((2, 2))), 8, 8)
    with pytest.raises(ValueError, match=r"FCN needs an encoder whose strides double"):
        shapes(models.FCN(2, encoder=tiny(8)), 32, 32)
    with pytest.raises(ValueError, match=r"a stride in \[2, 4\], got 8"):
        shapes(models.FCN(2, encoder=encoders.ConvEncoder((2, 2, 2))), 32, 32)


def test_dropout_and_statistics_in_training(random_variables, key):
    model = models.DeepLabV3(2, tiny(norm=layers.batch_norm), features=8)
    image = jax.random.uniform(key, (2, 32, 32, 3))
    variables = random_variables(model)

    @jax.jit
    def train(key):
        return model.apply(
            variables, image, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    first, state = train(key)
    second, _ = train(jax.random.key(7))
    assert np.any(first != second)
    changed = jax.tree.map(
        lambda a, b: bool(np.any(a != b)),
        state["batch_stats"],
        variables["batch_stats"],
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_equals_torchvision(name, rng):
    import torch

    torchvision = torchvision_oracle.load()
    torch.manual_seed(0)
    build = getattr(torchvision.models.segmentation, name)
    theirs = build(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    theirs.eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    image = rng.normal(size=(1, 65, 93, 3)).astype(np.float32)
    with torch.no_grad():
        want = theirs(torch.from_numpy(image).permute(0, 3, 1, 2))["out"]
    want = want.permute(0, 2, 3, 1).numpy()
    model = {
        "fcn_resnet50": models.DilatedFCN(5),
        "deeplabv3_resnet50": models.DeepLabV3(5),
    }[name]
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = interop.from_torchvision(state, shapes, epsilon=1e-5)
    got = jax.jit(model.apply)(variables, image)
    assert np.std(want) > 0.01
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    name = "classifier.4.weight"
    missing = {k: v for k, v in state.items() if k != name}
    with pytest.raises(ValueError, match=f"lacks {name}"):
        interop.from_torchvision(missing, shapes, epsilon=1e-5)
