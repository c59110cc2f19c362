"""Prepared data: access rights, checksums, atomicity, and messages for damage."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from segjax import data
from segjax.data import dataset, records
from tests.data import sources

SIZE = (8, 12)


@pytest.fixture(scope="module")
def files():
    rng = np.random.default_rng(0)
    made = {}
    for i in range(8):
        mask = rng.integers(0, 3, SIZE).astype(np.uint8)
        made[f"images/{i}.png"] = sources.png(sources.image(rng, *SIZE))
        made[f"masks/{i}.png"] = sources.png(mask)
    return made


def prepare(folder):
    return data.folder(
        folder / "mine", data_dir=folder / "prepared", validation=0.3, test=0.0
    )


def load(final):
    """Everything that a data set reads from a prepared folder."""
    metadata = dataset._read_metadata(final)
    examples = [
        (e["name"], e["image"].tobytes(), e["label"].tobytes())
        for split in metadata["digests"]
        # Not a `Dataset`, which beartype would inspect.
        for e in records.Examples(final, split)
    ]
    return metadata["classes"], metadata["digests"], examples


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, files):
    """A source's folder, its prepared folder (with a copy), and the loaded content."""
    folder = tmp_path_factory.mktemp("damage")
    sources.write(folder / "mine", files)
    prepare(folder)
    (final,) = (folder / "prepared/folder").glob("*/*")
    whole = load(final)
    shutil.copytree(final, folder / "copy")
    return folder, final, whole


def damages(content):
    yield None
    yield b""
    yield content[: len(content) // 2]
    yield content[:-1]
    yield b"\xff\x00" * 50
    yield bytes(len(content))
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        changed = bytearray(content)
        changed[int(len(content) * share)] ^= 0x55
        yield bytes(changed)


@pytest.mark.parametrize(
    "pattern",
    ["dataset_info.json", "features.json", "metadata.json", "*train.array_record*"],
)
def test_damage_names_the_folder_to_delete_or_changes_nothing(prepared, pattern):
    folder, final, whole = prepared
    (name,) = (p.name for p in (folder / "copy").glob(pattern))
    refused = 0
    for changed in damages((folder / "copy" / name).read_bytes()):
        shutil.rmtree(final)
        shutil.copytree(folder / "copy", final)
        (final / name).unlink()
        if changed is not None:
            (final / name).write_bytes(changed)
        try:
            assert load(final) == whole
            continue
        except ValueError as error:
            said = str(error)
        assert f"The prepared data in {final} are damaged: delete" in said
        assert "\n" not in said
        refused += 1
    assert refused >= 4
    shutil.rmtree(final)  # As the message suggests.
    prepare(folder)
    assert load(final) == whole


def test_a_folder_that_lost_its_description(prepared):
    folder, final, whole = prepared
    (final / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="delete that folder"):
        prepare(folder)
    shutil.rmtree(final)
    prepare(folder)
    assert load(final) == whole


def test_a_pipeline_s_line_names_the_folder_too(prepared):
    folder, final, _ = prepared
    made = prepare(folder)
    (path,) = final.glob("*train.array_record*")
    whole = path.read_bytes()
    place = whole.rindex(b"\x89PNG") + 60  # Of the last record.
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    pipeline = data.Pipeline(dataset=made, size=4)
    with pytest.raises(ValueError, match=r"record \d of 'train'.* delete that folder"):
        for _ in pipeline.eval_batches("train", batch_size=1):
            pass
    path.write_bytes(whole)


def test_prepared_copies_are_private(prepared):
    _, final, _ = prepared
    for path in (final, *final.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_data_prepared_before_there_was_a_checksum(prepared):
    _, final, whole = prepared
    path = final / "metadata.json"
    described = json.loads(path.read_text())
    del described["sha256"]
    path.write_text(json.dumps(described))
    assert load(final) == whole


FULL = """
import resource, sys
from segjax import data

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
data.folder(sys.argv[1], data_dir=sys.argv[2])
"""


def test_a_full_disk(tmp_path, rng):
    """With a limit on file size, which raises the errors of a full disk."""
    files = {}
    for i in range(8):
        files[f"images/{i}.png"] = sources.png(sources.image(rng, 64, 64))
        files[f"masks/{i}.png"] = sources.png(np.eye(64, dtype=np.uint8))
    source = sources.write(tmp_path / "mine", files)
    got = subprocess.run(
        [sys.executable, "-c", FULL, str(source), str(tmp_path / "prepared")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    last = got.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "segjax.UserError: prepared data could not be written to "
    ), last
    assert "File too large. Make room" in last
    assert sources.leftovers(tmp_path / "prepared") == []
