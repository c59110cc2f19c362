"""EfficientNet-Lite's weights: the published ones, and those of other ports."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from segjax import interop, models
from segjax.models import encoders, layers
from tests import torchvision_oracle

tiny = functools.partial(encoders.EfficientNetLite, width=0.125, depth=0.5)


def shapes_of(model, channels=3):
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.fixture
def state(rng):
    """A state dict for `tiny`, by efficientnet_lite_pytorch's names."""
    tensors = {"_fc.weight": np.zeros((5, 8)), "_bn1.weight": np.zeros(8)}
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean"}
    for path, x in jax.tree.leaves_with_path(shapes_of(tiny())):
        _, *modules, leaf = [k.key for k in path]
        norm = {"stem": "_bn0", "expand": "_bn0", "depthwise": "_bn1"}
        block, part = modules[0], modules[1] if len(modules) > 2 else modules[0]
        prefix = f"_blocks.{block[5:]}." if block.startswith("block") else ""
        if leaf == "kernel":
            name = f"{prefix}_{'conv_stem' if not prefix else part + '_conv'}.weight"
            shape = tuple(x.shape[i] for i in (3, 2, 0, 1))
        else:
            name = f"{prefix}{norm.get(part, '_bn2')}.{leaves.get(leaf, 'running_var')}"
            shape = x.shape
        tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return tensors


def test_every_tensor_is_accounted_for(state):
    def read(tensors):
        return interop.from_efficientnet_lite(tensors, shapes_of(tiny()))

    variables = read(state)
    kernel = variables["params"]["block1"]["depthwise"]["conv"]["kernel"]
    want = state["_blocks.1._depthwise_conv.weight"]
    np.testing.assert_array_equal(kernel[:, :, 0], want[:, 0].transpose(1, 2, 0))
    stats = variables["batch_stats"]["block2"]["project"]["BatchNorm_0"]
    np.testing.assert_array_equal(stats["var"], state["_blocks.2._bn2.running_var"])
    for name in ("_conv_stem.weight", "_blocks.3._bn1.running_var", "_bn0.bias"):
        with pytest.raises(ValueError, match=f"lacks {name}"):
            read({k: x for k, x in state.items() if k != name})
        with pytest.raises(ValueError, match=rf"{name} needs the shape .*has \[3\]"):
            read(state | {name: np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"has _blocks.99._bn0.bias \[2\], which"):
        read(state | {"_blocks.99._bn0.bias": np.zeros(2, np.float32)})


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels(state, channels):
    got = interop.from_efficientnet_lite(state, shapes_of(tiny(), channels))
    kernel = got["params"]["stem"]["conv"]["kernel"]
    want = state["_conv_stem.weight"].transpose(2, 3, 1, 0)
    assert kernel.shape[2] == channels
    if channels == 1:
        np.testing.assert_allclose(kernel[:, :, 0], want.sum(axis=2), rtol=1e-6)
    else:
        repeated = np.concatenate([want, want], axis=2)[:, :, :channels] * 3 / channels
        np.testing.assert_allclose(kernel, repeated, rtol=1e-6)


def test_frozen_norms_have_the_epsilon_of_the_network(state):
    shapes = shapes_of(tiny(norm=layers.frozen_norm))
    got = interop.from_efficientnet_lite(state, shapes)
    scale = got["frozen"]["stem"]["FrozenNorm_0"]["scale"]
    want = state["_bn0.weight"] / np.sqrt(state["_bn0.running_var"] + 1e-3)
    np.testing.assert_allclose(scale, want, rtol=1e-6)


def test_only_the_encoder_is_replaced():
    model = models.UNet(2, (2, 2, 2, 2, 2), encoder=encoders.efficientnet_lite0())
    fresh = jax.tree.map(lambda x: np.full(x.shape, 9.0), shapes_of(model))
    got = interop.efficientnet_lite0_imagenet()(fresh)
    assert jax.tree.structure(got) == jax.tree.structure(fresh)
    equal = jax.tree.map(lambda a, b: bool(np.all(a == b)), got, fresh)
    assert all(jax.tree.leaves(equal["params"]["up0"]))
    assert not any(jax.tree.leaves(equal["params"]["encoder"]))
    assert not any(jax.tree.leaves(equal["batch_stats"]["encoder"]))
    with pytest.raises(ValueError, match="nothing named 'body', only"):
        interop.efficientnet_lite0_imagenet(into="body")(fresh)
    other = shapes_of(models.UNet(2, encoder=encoders.efficientnet_lite1()))
    with pytest.raises(ValueError, match=r"needs the shape|lacks _blocks"):
        interop.efficientnet_lite0_imagenet()(other)


def photograph(package, name, side=224):
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    image = Image.open(folder / name).convert("RGB")
    square = min(image.size) * 7 / 8
    left, top = ((n - square) / 2 for n in image.size)
    box = (left, top, left + square, top + square)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))


@pytest.mark.slow
def test_real_weights_name_real_photographs():
    """ImageNet's 282 tiger cat, 967 espresso, 872 tripod, 985 daisy."""
    files = {
        282: ("skimage", "data/chelsea.png"),
        967: ("skimage", "data/coffee.png"),
        872: ("skimage", "data/camera.png"),
        985: ("sklearn", "datasets/images/flower.jpg"),
    }
    x = encoders.EFFICIENTNET_LITE(np.stack([photograph(*f) for f in files.values()]))
    model = models.Classifier(encoders.efficientnet_lite0())
    fresh = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = interop.efficientnet_lite0_imagenet(into="")(fresh)
    logits = jax.jit(model.apply)(variables, x)
    assert list(np.argmax(logits, axis=-1)) == list(files)


@pytest.mark.parity
def test_equals_timm(rng):
    import torch

    torchvision_oracle.load()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    image = rng.normal(size=(1, 65, 39, 3)).astype(np.float32)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).requires_grad_()
    want = theirs(x)
    weights = rng.normal(size=want.shape).astype(np.float32)
    want.backward(torch.from_numpy(weights))
    model = models.Classifier(encoders.efficientnet_lite0(), num_classes=7)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = interop.from_efficientnet_lite(state, shapes)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(image):
        logits = model.apply(variables, image)
        return jnp.sum(logits * weights), logits

    (_, logits), gradient = ours(image)
    want, grad = want.detach().numpy(), x.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(logits, want, atol=1e-4 * np.abs(want).max())
    np.testing.assert_allclose(gradient, grad, atol=1e-3 * np.abs(grad).max())


@pytest.mark.parity
@pytest.mark.parametrize("normed", [False, True])
def test_vgg_equals_torchvision(normed, rng):
    import torch

    vgg = torchvision_oracle.load().models.vgg
    torch.manual_seed(0)
    theirs = vgg.make_layers(vgg.cfgs["D"], batch_norm=normed).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {f"features.{k}": v.numpy() for k, v in theirs.state_dict().items()}
    state["classifier.6.weight"] = np.zeros((2, 3), np.float32)
    image = rng.normal(size=(1, 37, 50, 3)).astype(np.float32)
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    want = []
    with torch.no_grad():
        for layer in theirs:
            if isinstance(layer, torch.nn.MaxPool2d):
                want.append(x.permute(0, 2, 3, 1).numpy())
            x = layer(x)
    want.append(x.permute(0, 2, 3, 1).numpy())
    model = encoders.vgg16_bn() if normed else encoders.vgg16()
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = interop.from_torchvision(state, shapes, epsilon=1e-5)
    got = jax.jit(model.apply)(variables, image)
    for ours, other in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4 * np.abs(other).max())
    for name in ("features.0.weight", "features.10.weight"):
        missing = {k: x for k, x in state.items() if k != name}
        with pytest.raises(ValueError, match=f"lacks {name}"):
            interop.from_torchvision(missing, shapes, epsilon=1e-5)
    extra = {"features.50.weight": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=r"has features.50.weight \[1\], which"):
        interop.from_torchvision(state | extra, shapes, epsilon=1e-5)
