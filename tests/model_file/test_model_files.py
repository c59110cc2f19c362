"""Atomic writing of model folders, and one-line messages for damaged ones."""

import json
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from segjax import model_file, models, ops
from segjax.files import reading
from segjax.forward import Forward, make_forward

MODEL = models.SimpleCNN(num_classes=3, width=4)
FACTS = {
    "classes": ["background", "square", "bar"],
    "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
    "task": "semantic",
    "multiple": 32,
    "max_shapes": 8,
    "step": 7,
}


def variables_of(value):
    return {
        "params": {"head": {"kernel": np.full((2, 3), value, np.float32)}},
        "batch_stats": {"mean": jnp.full(4, value, jnp.bfloat16)},
        "count": np.int32(value),
    }


def assert_holds(folder, value):
    _, variables = model_file.read(folder)
    want = variables_of(value)
    assert jax.tree.structure(variables) == jax.tree.structure(want)
    for got, expected in zip(*map(jax.tree.leaves, (variables, want)), strict=True):
        assert got.dtype == np.asarray(expected).dtype
        assert got.shape == np.shape(expected)
        np.testing.assert_array_equal(got, expected)


def write(folder, value=1, forward=None):
    forward = make_forward(MODEL) if forward is None else forward
    model_file.write(folder, forward, variables_of(value), FACTS)


def test_written_and_read(tmp_path):
    forward = Forward(MODEL, ops.normalize((0.5,), (0.2,)), models.mask_rcnn_inputs)
    write(tmp_path / "run", forward=forward)
    assert_holds(tmp_path / "run", 1)
    description, _ = model_file.read(tmp_path / "run")
    assert model_file.build_forward(description) == forward
    assert {name: description[name] for name in FACTS} == FACTS
    assert description["margin"] == 0
    (tensors,) = (tmp_path / "run").glob("*.safetensors")
    assert description["variables"]["name"] == tensors.name
    assert description["variables"]["sha256"].startswith(tensors.stem[-12:])
    # The files can be read by other libraries.
    read = safetensors.deserialize(tensors.read_bytes())
    assert sorted(name for name, _ in read) == [
        "batch_stats/mean", "count", "params/head/kernel",
    ]  # fmt: skip


def test_only_the_newest_variables_stay(tmp_path):
    for value in (1, 2, 2, 3):
        write(tmp_path, value)
        assert_holds(tmp_path, value)
        assert len(list(tmp_path.iterdir())) == 2


class Killed(BaseException):
    pass


def test_a_kill_at_any_moment_leaves_the_old_model_or_the_new(tmp_path, monkeypatch):
    """Raises at each call that touches the disk, the first, the second, and so on."""
    write(tmp_path, 1)
    calls = {"left": 0}

    def dying(call):
        def wrapped(*args, **options):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise Killed
            return call(*args, **options)

        return wrapped

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    seen = []
    for survived in range(20):
        calls["left"] = survived
        try:
            write(tmp_path, 2)
        except Killed:
            _, variables = model_file.read(tmp_path)
            seen.append(int(variables["count"]))
            assert_holds(tmp_path, seen[-1])
        else:
            break
        calls["left"] = 100
        write(tmp_path, 1)
    assert set(seen) == {1, 2}
    assert seen == sorted(seen)
    assert_holds(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_concurrent_reader_gets_the_old_or_the_new_model(tmp_path, monkeypatch):
    write(tmp_path, 1)
    read_bytes = reading.read_bytes

    def read_late(path, **options):
        if path.suffix == ".safetensors" and not written:
            written.append(True)
            write(tmp_path, 2)  # Removes what model.json named a moment ago.
        return read_bytes(path, **options)

    written = []
    monkeypatch.setattr(reading, "read_bytes", read_late)
    assert_holds(tmp_path, 2)


class Mine(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Conv(2, (1, 1))(image)


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (make_forward(Mine()), "module is .*Mine"),
        (make_forward(MODEL, preprocess=lambda x: x / 2), "preprocess is .*lambda"),
        (make_forward(MODEL, model_inputs=lambda b: b), "model_inputs is .*lambda"),
    ],
    ids=["module", "preprocess", "inputs"],
)
def test_models_with_custom_code_state_why(tmp_path, forward, why):
    write(tmp_path, forward=forward)
    description, _ = model_file.read(tmp_path)
    with pytest.raises(model_file.NotSerializableError, match=why):
        model_file.build_forward(description)


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage(folder):
    (path,) = folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


BROKEN = {
    "none": (lambda f: (f / "model.json").unlink(), "model.json is missing"),
    "cut": (lambda f: (f / "model.json").write_text('{"for'), "model.json is damaged"),
    "list": (lambda f: (f / "model.json").write_text("[]"), "no format number"),
    "newer": (lambda f: edit(f, format=2, segjax="9.1"), "format 2, .* 1. .* 9.1"),
    "bits": (damage, "variables-.*damaged: its SHA-256"),
    "lost": (lambda f: [p.unlink() for p in f.glob("*.saf*")], "variables-.* missing"),
    "path": (
        lambda f: edit(f, variables={"name": "../x"}),
        "not a file name in this folder",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_line_names_the_broken_file(tmp_path, name):
    write(tmp_path)
    harm, words = BROKEN[name]
    harm(tmp_path)
    with pytest.raises(ValueError, match=words) as error:
        model_file.read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_messages_of_write(tmp_path):
    forward = make_forward(MODEL)
    for facts, words in (
        (FACTS | {"margin": 1}, "reserved names: margin"),
        (FACTS | {"task": "depth"}, "got 'depth'"),
        ({"classes": []}, "need image, task"),
    ):
        with pytest.raises(ValueError, match=words):
            model_file.write(tmp_path, forward, variables_of(1), facts)
    for variables in ({"a/b": np.zeros(1)}, {"a": [np.zeros(1)]}, {"a": np.array("x")}):
        with pytest.raises(ValueError, match="array of numbers"):
            model_file.write(tmp_path, forward, variables, FACTS)
    assert not list(tmp_path.iterdir())


def test_every_stored_dtype_comes_back(tmp_path):
    dtypes = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64"]
    dtypes += ["int64", "float16", "float32", "float64", np.dtype(jnp.bfloat16)]
    arrays = {str(i): np.ones((2, 1, 3), d)[::-1] for i, d in enumerate(dtypes)}
    model_file.write(tmp_path, make_forward(MODEL), {"params": arrays}, FACTS)
    got = model_file.read(tmp_path)[1]["params"]
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
