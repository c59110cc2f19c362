"""Malformed model.json and variables: one-line messages that name the file."""

import hashlib
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import segjax
from segjax import inference, interop, model_file, models
from segjax.forward import Forward


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of a small model."""
    folder = tmp_path_factory.mktemp("model")
    module = models.SimpleCNN(num_classes=3, width=4)
    image = np.zeros((1, 16, 16, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    facts = {
        "classes": ["background", "square", "bar"],
        "colors": ["#000000", "#ff0000", "#00ff00"],
        "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
        "task": "semantic",
        "multiple": 16,
        "max_shapes": 2,
    }
    model_file.write(folder, Forward(module), variables, facts)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def folder(tmp_path, written):
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refused(folder, name):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        segjax.load(folder)
    assert str(folder / name) in str(error.value)
    assert len(str(error.value)) < 700


FIELDS = [
    ("format", "1"),
    ("format", 99),
    ("format", None),
    ("format", 1e400),
    ("variables", None),
    ("variables", "x.safetensors"),
    ("variables", {}),
    ("variables", {"name": "../x.safetensors", "sha256": ""}),
    ("variables", {"name": "/etc/passwd", "sha256": ""}),
    ("variables", {"name": 3, "sha256": ""}),
    ("variables", {"name": "none.safetensors", "sha256": ""}),
    ("classes", None),
    ("classes", []),
    ("classes", "abc"),
    ("classes", [1, 2, 3]),
    ("classes", ["a", "\x1b[2J", "c"]),
    ("classes", ["\ud800"] * 3),
    ("colors", ["#000000"]),
    ("colors", ["red"] * 3),
    ("colors", [0] * 3),
    ("image", None),
    ("image", {"channels": 3}),
    ("image", {"channels": "3", "dtype": "uint8"}),
    ("image", {"channels": 10**12, "dtype": "uint8"}),
    ("image", {"channels": 3, "dtype": "object"}),
    ("image", {"channels": 4, "dtype": "uint8"}),
    ("task", "translation"),
    ("task", ["semantic"]),
    ("multiple", 0),
    ("multiple", 10**9),
    ("multiple", 1.5),
    ("max_shapes", -1),
    ("max_shapes", True),
    ("needs_code", 3),
    ("module", None),
    ("module", []),
    ("module", {}),
    ("module", {"name": ["UNet"]}),
    ("module", {"name": "os.system"}),
    ("module", {"class": "UNet", "attributes": {"zeal": 1}}),
    ("module", {"class": "UNet", "attributes": []}),
    ("module", {"class": "UNet", "attributes": {}}),
    ("module", {"class": ["UNet"], "attributes": {}}),
    ("module", {"class": "SimpleCNN", "attributes": {"num_classes": "3"}}),
    ("module", {"class": "SimpleCNN", "attributes": {"num_classes": 10**12}}),
    ("module", {"class": "SimpleCNN", "attributes": {"num_classes": -3}}),
    ("module", {"partial": {"name": "resnet50"}, "args": 3, "keywords": {}}),
    ("module", {"partial": 3, "args": [], "keywords": {}}),
    ("module", {"float": "x"}),
    ("module", {"dtype": "x"}),
    ("module", {"remat": 3}),
    ("preprocess", {"class": "ops.Normalize", "attributes": {}}),
    ("preprocess", {"float": "1"}),
    ("model_inputs", {"name": "resnet50"}),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_fields(folder, field, value):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    name = path.name
    if isinstance(value, dict) and value.get("name") == "none.safetensors":
        name = value["name"]
    refused(folder, name)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"3", b"null", b"\xff\xfe\x00", b"[" * 100_000,
        b'{"a":' * 100_000, b'{"format": 1}', b'{"format": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_text(folder, text):
    (folder / "model.json").write_bytes(text)
    refused(folder, "model.json")


def test_deep_inside(folder):
    path = folder / "model.json"
    described = json.loads(path.read_text())
    deep = b'{"list": ' * 900 + b"[]" + b"}" * 900
    text = json.dumps(described | {"module": "DEEP"}).encode()
    path.write_bytes(text.replace(b'"DEEP"', deep))
    refused(folder, "model.json")


def raw(header, numbers=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + numbers


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


EIGHT = bytes(8)
TENSORS = {
    "empty": b"",
    "short": b"\0\0\0",
    "no header": bytes(8),
    "length beyond": raw({}, length=99),
    "length huge": raw({}, length=2**63),
    "length all": b"\xff" * 16,
    "not JSON": raw(b"{hello}"),
    "list": raw([]),
    "number": raw(b"3"),
    "null": raw(b"null"),
    "deep": raw(b"[" * 100_000),
    "not UTF-8": raw(b'{"\xff": 1}'),
    "entry null": raw({"x": None}),
    "entry list": raw({"x": [1]}),
    "entry empty": raw({"x": {}}),
    "no dtype": raw({"x": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT),
    "no shape": raw({"x": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT),
    "no offsets": raw({"x": {"dtype": "F32", "shape": [2]}}, EIGHT),
    "dtype number": raw({"x": entry(3)}, EIGHT),
    "dtype unknown": raw({"x": entry("F33")}, EIGHT),
    "dtype not NumPy's": raw({"x": entry("F8_E4M3", [8])}, EIGHT),
    "shape text": raw({"x": entry(shape="2")}, EIGHT),
    "shape negative": raw({"x": entry(shape=[-2])}, EIGHT),
    "shape float": raw({"x": entry(shape=[2.0])}, EIGHT),
    "shape other": raw({"x": entry(shape=[3])}, EIGHT),
    "shape overflow": raw({"x": entry(shape=[2**62, 2**62])}, EIGHT),
    "offsets one": raw({"x": entry(offsets=[0])}, EIGHT),
    "offsets three": raw({"x": entry(offsets=[0, 8, 8])}, EIGHT),
    "offsets text": raw({"x": entry(offsets="08")}, EIGHT),
    "offsets back": raw({"x": entry(offsets=[8, 0])}, EIGHT),
    "offsets negative": raw({"x": entry(offsets=[-8, 0])}, EIGHT),
    "offsets beyond": raw({"x": entry(offsets=[0, 16], shape=[4])}, EIGHT),
    "offsets huge": raw({"x": entry(offsets=[0, 2**70])}, EIGHT),
    "overlap": raw({"x": entry(), "y": entry()}, EIGHT),
    "hole": raw({"x": entry(), "y": entry(offsets=[12, 20])}, bytes(20)),
    "more": raw({"x": entry()}, bytes(9)),
    "less": raw({"x": entry()}, bytes(7)),
    "metadata number": raw({"__metadata__": 3, "x": entry()}, EIGHT),
    "metadata nested": raw({"__metadata__": {"a": {}}, "x": entry()}, EIGHT),
    "twice": raw(b'{"x": 1, "x": 2}'),
}


@pytest.mark.parametrize("content", TENSORS.values(), ids=TENSORS.keys())
def test_tensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        interop.read_tensors(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
def test_names_inside_each_other(folder, names):
    tensors = {name: np.zeros(2, np.float32) for name in names}
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(safetensors.numpy.save(tensors))
    described = json.loads((folder / "model.json").read_text())
    described["variables"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(described))
    refused(folder, path.name)


def test_tensors_without_numbers(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"x": entry(shape=[0, 3], offsets=[0, 0])}))
    assert interop.read_tensors(path)["x"].shape == (0, 3)


def test_whole_files_load(folder):
    image = np.zeros((5, 6, 3), np.uint8)
    assert segjax.load(folder).predict(image).labels.shape == (5, 6)
    assert isinstance(segjax.load(folder), inference.Model)
