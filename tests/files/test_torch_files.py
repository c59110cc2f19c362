"""Files of `torch.save` are read without PyTorch, and no code in them is executed."""

import collections
import io
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from segjax import interop
from segjax.files import torch_files


class Call:
    """Pickled as a call, which `pickle.load` would execute."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(program, storages=(), *, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as z:
        z.writestr("model/data.pkl", program)
        for key, data in dict(storages).items():
            z.writestr(f"model/data/{key}", data)
    return file.getvalue()


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value):
    return b"J" + struct.pack("<i", value)


def many(*values):
    return b"(" + b"".join(values) + b"t"


def tensor(key, count, *, offset=0, shape=(2,), strides=(1,)):
    """Instructions that rebuild a float32 tensor, as torch writes them."""
    kind = b"ctorch\nFloatStorage\n"
    storage = many(text("storage"), kind, text(key), text("cpu"), whole(count)) + b"Q"
    sizes = [many(*map(whole, x)) for x in (shape, strides)]
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = many(storage, whole(offset), *sizes, b"\x89", hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state(**tensors):
    items = b"".join(text(name) + x for name, x in tensors.items())
    return b"\x80\x02}(" + items + b"u."


NUMBERS = np.arange(6, dtype=np.float32)


def test_views_of_a_storage_by_hand():
    program = state(
        a=tensor("0", 6, offset=1, shape=(2, 2), strides=(1, 3)),
        b=tensor("0", 6, shape=(), strides=()),
        c=tensor("0", 6, shape=(0, 3), strides=(3, 1)),
    )
    got = torch_files.parse(archive(program, {"0": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(got["a"], [[1, 4], [2, 5]])
    np.testing.assert_array_equal(got["b"], 0.0)
    assert got["c"].shape == (0, 3)
    assert got["a"].flags.owndata


@pytest.mark.parametrize(
    "wrong",
    [
        tensor("0", 6, offset=5),
        tensor("0", 6, shape=(7,), strides=(0,)),
        tensor("0", 6, shape=(4,), strides=(2,)),
        tensor("0", 6, shape=(2,), strides=(2**30,)),
    ],
)
def test_views_outside_of_a_storage(wrong):
    content = archive(state(a=wrong), {"0": NUMBERS.tobytes()})
    with pytest.raises(ValueError, match="its tensor a exceeds its storage"):
        torch_files.parse(content)
    negative = tensor("0", 6, shape=(2,), strides=(-1,))
    with pytest.raises(ValueError, match="not a valid pickle"):
        torch_files.parse(archive(state(a=negative), {"0": NUMBERS.tobytes()}))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_calls_are_refused_without_executing(protocol, tmp_path):
    made = tmp_path / "made"
    for call in (
        Call(os.mkdir, str(made)),
        Call(eval, f"__import__('os').mkdir({str(made)!r})"),
        Call(pathlib.Path, str(made)),
        collections.Counter("aab"),
    ):
        program = pickle.dumps({"weight": call}, protocol)
        for content in (archive(program), program):
            with pytest.raises(ValueError, match=r"nothing was executed|written by"):
                torch_files.parse(content)
    assert not made.exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"(S'x'\nios\nsystem\n.", "instruction (STRING|INST)"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"cos\nsystem\n(X\x01\x00\x00\x00xtR.", "needs os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "needs os.system"),
        (b"}ccollections\nOrderedDict\n)\x81b.", "instruction NEWOBJ"),
        (b"ctorch\nFloatStorage\n)R.", "not a valid pickle"),
        (b"}X\x01\x00\x00\x00ah\x05s.", "not a valid pickle"),
        (b"}(X\xff\xff\xff\x7fa", "not a valid pickle"),
        (b"", "not a valid pickle"),
        (b"K\x01.", "holds int"),
        (b"}X\x01\x00\x00\x00aK\x01s.", "holds a dictionary of a"),
    ],
)
def test_other_programs_are_refused(program, reason):
    with pytest.raises(ValueError, match=reason):
        torch_files.parse(archive(program))


def test_damaged_archives():
    whole_file = archive(state(a=tensor("0", 6)), {"0": NUMBERS.tobytes()})
    with pytest.raises(ValueError, match="storage 0 is damaged"):
        torch_files.parse(archive(state(a=tensor("0", 6))))
    with pytest.raises(ValueError, match="needs 6 numbers of float32 and has 20 bytes"):
        torch_files.parse(archive(state(a=tensor("0", 6)), {"0": b"x" * 20}))
    with pytest.raises(ValueError, match="compressed"):
        torch_files.parse(
            archive(state(a=tensor("0", 6)), compression=zipfile.ZIP_DEFLATED)
        )
    with pytest.raises(ValueError, match="damaged zip"):
        torch_files.parse(whole_file[:-30])
    flipped = bytearray(whole_file)
    flipped[flipped.index(NUMBERS.tobytes())] ^= 1
    with pytest.raises(ValueError, match="storage 0 is damaged"):
        torch_files.parse(bytes(flipped))
    with pytest.raises(ValueError, match=r"not one of torch.save"):
        torch_files.parse(archive(b"").replace(b"data.pkl", b"data.txt"))


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_equals_torch(zipped, tmp_path, rng):
    import torch

    base = torch.from_numpy(rng.normal(size=(4, 6)).astype(np.float32))
    tensors = collections.OrderedDict(
        base=base,
        part=base[1:, ::2],
        turned=base.T,
        parameter=torch.nn.Parameter(base + 1),
        brain=base.bfloat16(),
        **{
            str(kind).split(".")[1]: torch.arange(5).to(kind)
            for kind in (torch.float16, torch.float64, torch.int64, torch.uint8)
        },
        flag=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(7),
    )
    path = tmp_path / "weights.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    got = interop.read_tensors(path)
    assert list(got) == list(tensors)
    for name, x in tensors.items():
        want = x.float() if x.dtype == torch.bfloat16 else x
        assert got[name].dtype == want.detach().numpy().dtype
        np.testing.assert_array_equal(got[name], want.detach().numpy())


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_whole_models_are_refused(zipped, tmp_path):
    import torch

    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 3), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"needs .*Linear, which is code, not a tensor"
    ):
        interop.read_tensors(path)
    module = torch.nn.Linear(2, 3)
    whole_state = {"model": module.state_dict(), "epoch": 3}
    torch.save(whole_state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="holds a dictionary of model, epoch"):
        interop.read_tensors(path)
