import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import interop, models
from segjax.cli import scripts
from segjax.cli.main import main
from segjax.models import layers
from tests.data import sources

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
KINDS = {"F32": np.float32, "I64": np.int64, "F16": np.float16}


def shapes_of(model):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def tiny(**attributes):
    return models.ResNet((1, 1, 1, 1), models.BasicBlock, 4, **attributes)


@pytest.fixture
def state(rng):
    """The state dict of a ResNet as small as `tiny`, by torchvision's names."""
    widths = (4, 8, 16, 32)
    sizes = {"conv1.weight": (4, 3, 7, 7), "fc.weight": (10, 32), "fc.bias": (10,)}
    norms = {"bn1": 4}
    for i, width in enumerate(widths):
        before, name = widths[max(i - 1, 0)], f"layer{i + 1}.0"
        sizes[f"{name}.conv1.weight"] = (width, before, 3, 3)
        sizes[f"{name}.conv2.weight"] = (width, width, 3, 3)
        norms |= {f"{name}.bn1": width, f"{name}.bn2": width}
        if i:
            sizes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
            norms[f"{name}.downsample.1"] = width
    tensors = {k: rng.normal(size=s).astype(np.float32) for k, s in sizes.items()}
    for name, width in norms.items():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            value = rng.uniform(0.5, 1.5, size=width)
            tensors[f"{name}.{leaf}"] = value.astype(np.float32)
        tensors[f"{name}.num_batches_tracked"] = np.array(7, np.int64)
    return tensors


def write_safetensors(path, tensors):
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    names = {np.dtype(kind): name for name, kind in KINDS.items()}
    for name, x in tensors.items():
        end = len(numbers) + x.nbytes
        header[name] = {
            "dtype": names[x.dtype],
            "shape": list(x.shape),
            "data_offsets": [len(numbers), end],
        }
        numbers += x.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def test_frozen_norms_by_hand(state):
    variables = interop.from_torchvision(state, shapes_of(tiny()), epsilon=0.5)
    conv = variables["params"]["layer2_0"]["downsample"]["conv"]["kernel"]
    want = state["layer2.0.downsample.0.weight"]
    np.testing.assert_array_equal(conv[0, 0], want[:, :, 0, 0].T)
    norm = variables["frozen"]["layer3_0"]["conv2"]["FrozenNorm_0"]
    weight, bias, mean, var = (
        state[f"layer3.0.bn2.{leaf}"]
        for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    x = 3.0
    want = (x - mean) / np.sqrt(var + 0.5) * weight + bias
    np.testing.assert_allclose(x * norm["scale"] + norm["bias"], want, rtol=1e-5)


def test_batch_norms_keep_their_statistics(state):
    shapes = shapes_of(tiny(norm=layers.batch_norm))
    variables = interop.from_torchvision(state, shapes, epsilon=1e-5)
    params = variables["params"]["conv1"]["BatchNorm_0"]
    stats = variables["batch_stats"]["conv1"]["BatchNorm_0"]
    np.testing.assert_array_equal(params["scale"], state["bn1.weight"])
    np.testing.assert_array_equal(params["bias"], state["bn1.bias"])
    np.testing.assert_array_equal(stats["mean"], state["bn1.running_mean"])
    np.testing.assert_array_equal(stats["var"], state["bn1.running_var"])


def test_counters_and_classifier_are_ignored(state):
    ignored_keys = interop.ignored_keys(state)
    assert "bn1.num_batches_tracked" in ignored_keys
    assert {"fc.weight", "fc.bias"} < set(ignored_keys)
    assert len(ignored_keys) == 2 + sum("running_mean" in name for name in state)


@pytest.mark.parametrize(
    "name", ["conv1.weight", "layer2.0.downsample.1.running_var", "layer4.0.bn2.bias"]
)
def test_every_tensor_is_accounted_for(state, name):
    def read(tensors):
        interop.from_torchvision(tensors, shapes_of(tiny()), epsilon=1e-5)

    with pytest.raises(ValueError, match=f"lacks {name} "):
        read({k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError, match=rf"{name} needs the shape \[.*has \[3\]"):
        read(state | {name: np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"has layer5.weight \[2\], which the model"):
        read(state | {"layer5.weight": np.zeros(2, np.float32)})


def test_group_norm_has_no_counterpart(state):
    shapes = shapes_of(tiny(norm=layers.group_norm))
    with pytest.raises(ValueError, match="no counterpart of conv1/GroupNorm_0"):
        interop.from_torchvision(state, shapes, epsilon=1e-5)


def test_safetensors(state, tmp_path):
    path = tmp_path / "resnet.safetensors"
    state["half"] = np.array([[1.5, -2.0]], np.float16)
    write_safetensors(path, state)
    read = interop.read_tensors(path)
    assert read.keys() == state.keys()
    for name, x in state.items():
        assert read[name].dtype == x.dtype
        np.testing.assert_array_equal(read[name], x)
    assert "torch" not in {name.split(".")[0] for name in read}


def test_bfloat16(tmp_path):
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    # 1.0 is 3f80, -2.5 is c020: the upper halves of the float32.
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + bytes([0x80, 0x3F, 0x20, 0xC0])
    )
    np.testing.assert_array_equal(interop.read_tensors(path)["x"], [1.0, -2.5])


@pytest.mark.parametrize("cut", [3, 40, -1])
def test_damaged_safetensors(state, tmp_path, cut):
    path = tmp_path / "cut.safetensors"
    write_safetensors(path, state)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        ValueError, match=r"cannot be read: it is not a valid safetensors"
    ):
        interop.read_tensors(path)


def test_damaged_pth(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.pth cannot be read: it is not a"):
        interop.read_tensors(path)


def test_folder_round_trip(state, tmp_path):
    variables = interop.from_torchvision(state, shapes_of(tiny()), epsilon=1e-5)
    folder = tmp_path / "weights"
    interop.save(folder, variables)
    loaded = interop.load(folder)
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    with pytest.raises(ValueError, match="exists already"):
        interop.save(folder, variables)
    with pytest.raises(ValueError, match="not a folder of variables"):
        interop.load(tmp_path / "other")


def test_a_name_that_is_a_pattern(state, tmp_path):
    """TensorStore would write nothing there, and say nothing."""
    variables = interop.from_torchvision(state, shapes_of(tiny()), epsilon=1e-5)
    with pytest.raises(ValueError, match="needs a name without"):
        interop.save(tmp_path / "weights [1]", variables)
    assert list(tmp_path.iterdir()) == []
    interop.save(tmp_path / "mine [1]" / "weights", variables)
    loaded = interop.load(tmp_path / "mine [1]" / "weights")
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_init_from():
    fresh = {"params": {"body": {"kernel": np.zeros((2, 2), np.float32)}}}
    fresh["params"]["head"] = {"bias": np.zeros(3, np.float32)}
    loaded = jax.tree.map(lambda x: x + 1, fresh)
    start = interop.init_from(loaded, exclude=["params/head"])
    got = jax.jit(start)(fresh)
    np.testing.assert_array_equal(got["params"]["body"]["kernel"], np.ones((2, 2)))
    np.testing.assert_array_equal(got["params"]["head"]["bias"], np.zeros(3))
    part = interop.init_from({"params": {"body": loaded["params"]["body"]}})(fresh)
    jax.tree.map(np.testing.assert_array_equal, part, got)
    other = {"params": {"head": {"bias": np.zeros(4, np.float32)}}}
    with pytest.raises(ValueError, match=r"params/head/bias is \[4\] .* has \[3\]"):
        interop.init_from(other)(fresh)
    with pytest.raises(ValueError, match="the model has nothing there"):
        interop.init_from({"params": {"neck": np.zeros(4)}})(fresh)
    nested = {"params": {"kernel": np.ones((2, 2), np.float32)}}
    into = interop.init_from(nested, into="body")(fresh)
    jax.tree.map(np.testing.assert_array_equal, into, got)


def test_init_from_names_all_that_does_not_fit():
    fresh = {"params": {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}}
    loaded = {"params": {"head": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}}}
    reason = r"and 1 more do not fit.*exclude=\['params/head'\]"
    with pytest.raises(ValueError, match=reason):
        interop.init_from(loaded)(fresh)


def test_init_matching():
    def tree(body, head):
        return {
            "params": {
                "body": {"kernel": np.full((2, 2), body, np.float32)},
                # The bias fits by chance; the layer is new as a whole.
                "head": {
                    "kernel": np.full((2, head), head, np.float32),
                    "bias": np.full(3, head, np.float32),
                },
            }
        }

    lines = []
    loaded = tree(1, 5)
    loaded["params"]["aux"] = {"bias": np.ones(7)}
    got = interop.init_matching(loaded, report=lines.append)(tree(0, 3))
    jax.tree.map(np.testing.assert_array_equal, got, tree(1, 3))
    assert lines == ["Initialized 1 arrays. New: params/head. Not taken: params/aux."]
    with pytest.raises(ValueError, match="nothing of the loaded variables fits"):
        interop.init_matching(loaded, into="encoder")(tree(0, 3))


def test_with_channels(state):
    variables = interop.from_torchvision(state, shapes_of(tiny()), epsilon=1e-5)
    path = "params/conv1/conv/kernel"
    before = variables["params"]["conv1"]["conv"]["kernel"]
    gray = interop.with_channels(variables, path, channels=1)
    kernel = gray["params"]["conv1"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0], before.sum(axis=2), rtol=1e-6)
    five = interop.with_channels(variables, path, channels=5)
    kernel = five["params"]["conv1"]["conv"]["kernel"]
    want = before[:, :, [0, 1, 2, 0, 1]] * 0.6
    np.testing.assert_allclose(kernel, want, rtol=1e-6)
    assert variables["params"]["conv1"]["conv"]["kernel"] is before
    assert five["frozen"] is variables["frozen"]
    for wrong, has in (
        ("params/stem/kernel", "nothing"),
        ("params/fc/bias", "nothing"),
    ):
        with pytest.raises(ValueError, match=f"{wrong} needs .* have {has} there"):
            interop.with_channels(variables, wrong, channels=1)
    with pytest.raises(ValueError, match=r"have \[7, 7, 5, 4\] there"):
        interop.with_channels(five, path, channels=1)


@pytest.fixture
def torchvision():
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    from torchvision_cpu import torchvision

    yield torchvision
    sys.path.pop(0)


@pytest.mark.parity
@pytest.mark.parametrize(
    "version", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]
)
def test_current_and_old_names(torchvision, version):
    import torch

    with torch.device("meta"):  # Names and shapes, no numbers.
        network = getattr(torchvision.models.detection, version)(
            weights=None, weights_backbone=None, num_classes=3
        )
    # Zeros that take no memory.
    state = {
        name: np.broadcast_to(np.float32(0), tuple(x.shape))
        for name, x in network.state_dict().items()
    }
    model = getattr(models, version.replace("maskrcnn", "mask_rcnn"))(3)
    shapes = shapes_of(model)
    interop.from_torchvision(state, shapes, epsilon=1e-5)
    if version.endswith("v2"):
        return
    old = {}
    for name, x in state.items():
        for new, before in (
            ("rpn.head.conv.0.0.", "rpn.head.conv."),
            *((f"_blocks.{i}.0.", f"_blocks.{i}.") for i in range(4)),
            *((f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.") for i in range(4)),
        ):
            name = name.replace(new, before)
        old[name] = x
    assert old.keys() != state.keys()
    interop.from_torchvision(old, shapes, epsilon=1e-5)
    missing = {k: v for k, v in state.items() if "conv5_mask.bias" not in k}
    with pytest.raises(ValueError, match=r"lacks roi_heads.mask_predictor.conv5_mask"):
        interop.from_torchvision(missing, shapes, epsilon=1e-5)
    other = shapes_of(models.mask_rcnn_resnet50_fpn(4))
    with pytest.raises(ValueError, match=r"needs the shape \[16.* has \[12"):
        interop.from_torchvision(state, other, epsilon=1e-5)


@pytest.mark.parity
def test_import_command(torchvision, tmp_path, capsys):
    import torch

    torch.manual_seed(0)
    path, folder = tmp_path / "resnet18.pth", tmp_path / "out"
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, path)
    args = ["import", str(path), "--model", "resnet18", "--out", str(folder)]
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "Read 100 tensors of resnet18: 11,166,912 parameters" in printed
    assert "num_batches_tracked, fc.weight, fc.bias" in printed
    loaded = interop.load(folder)
    want = state["layer4.1.conv2.weight"].permute(2, 3, 1, 0).numpy()
    kernel = loaded["params"]["layer4_1"]["conv2"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, want)
    with pytest.raises(SystemExit) as end:
        main([*args[:-1], str(tmp_path / "other"), "--model", "resnet34"])
    assert end.value.code == 2
    assert "error: the checkpoint lacks layer" in capsys.readouterr().err


@pytest.mark.parity
@pytest.mark.slow
def test_fine_tuning_mask_rcnn(torchvision, rng, tmp_path):
    """The commands of docs/finetuning.md, with random weights of 91 classes."""
    import torch

    with torch.device("meta"):
        network = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=91
        )
    state = {
        name: rng.uniform(0.5, 1.5, tuple(x.shape)).astype(np.float32)
        for name, x in network.state_dict().items()
    }
    path, folder = tmp_path / "coco.safetensors", tmp_path / "coco"
    write_safetensors(path, state)
    name = "maskrcnn_resnet50_fpn"
    with pytest.raises(SystemExit) as end:
        main(["import", str(path), "--model", name, "--out", str(folder)])
    assert end.value.code == 0
    build = scripts.load(EXPERIMENTS / "folder_mask_rcnn.py")
    source = tmp_path / "mine"
    ids = np.zeros((40, 40), np.uint8)
    ids[8:20, 8:20] = 1
    files = {}
    for i in range(10):
        files[f"images/{i}.png"] = sources.png(sources.image(rng, 40, 40))
        files[f"instances/{i}.png"] = sources.png(ids)
    experiment = build(source=sources.write(source, files), weights=folder, size=64)
    assert experiment.model.roi_heads.num_classes == 2
    shapes = shapes_of(experiment.model)
    fresh = jax.tree.map(lambda x: np.full(x.shape, 9, x.dtype), shapes)
    got = experiment.init_from(fresh)
    loaded = interop.load(folder)
    want = jax.tree.leaves_with_path(loaded)
    new = set()
    for path, x in want:
        ours = got
        for key in path:
            ours = ours[key.key]
        if np.array_equal(ours, x):
            continue
        new.add("/".join(key.key for key in path[1:-1]))
        assert np.all(ours == 9)
    assert new == {
        "roi_heads/box/score",
        "roi_heads/box/delta",
        "roi_heads/mask/logits",
    }
