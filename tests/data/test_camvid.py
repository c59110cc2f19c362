import numpy as np
import pytest

from segjax import data
from segjax.typing import IGNORE_INDEX
from tests.data import sources


@pytest.fixture
def files(rng):
    """Three images a split, with ids 0 to 11."""
    found = {"CamVid/train.txt": b"names that nobody reads"}
    for split in ("train", "val", "test"):
        for i in range(3):
            mask = rng.permutation(np.arange(96, dtype=np.uint8) % 12)
            pixels = sources.png(sources.image(rng), "JPEG")
            found[f"CamVid/{split}/{i}.jpg"] = pixels
            found[f"CamVid/{split}annot/{i}.png"] = sources.png(mask.reshape(8, 12))
    return found


@pytest.fixture
def message(tmp_path, files):
    """The message for bad files in a zip; checks that no file is left."""

    def message(files):
        source = sources.zipped(tmp_path / "CamVid.zip", files)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            data.camvid(source, data_dir=tmp_path / "prepared")
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(caught.value).replace(str(tmp_path), "")

    return message


def test_zip_folder_and_top_folder_are_the_same(files, tmp_path):
    sources.zipped(tmp_path / "zip" / "CamVid.zip", files)
    sources.write(tmp_path / "unpacked", files)
    prepared = [
        data.camvid(tmp_path / source, data_dir=tmp_path / "prepared")
        for source in ("zip", "zip/CamVid.zip", "unpacked", "unpacked/CamVid")
    ]
    assert len({p.fingerprint for p in prepared}) == 1
    sizes = {k: len(v) for k, v in prepared[0].splits.items()}
    assert sizes == {"train": 3, "validation": 3, "test": 3}


def test_twelfth_id_is_ignored(files, tmp_path):
    source = sources.write(tmp_path / "source", files)
    prepared = data.camvid(source, data_dir=tmp_path / "prepared")
    assert prepared.classes[:2] == ("sky", "building")
    assert len(prepared.classes) == 11
    for example in prepared.splits["validation"]:
        found = np.bincount(example["label"].ravel(), minlength=256)
        assert found[:11].tolist() == [8] * 11
        assert found[IGNORE_INDEX] == 8


def test_source_is_needed_once(files, tmp_path):
    with pytest.raises(ValueError, match=r"camvid is not prepared in .*--source DIR"):
        data.camvid(data_dir=tmp_path / "prepared")
    source = sources.write(tmp_path / "source", files)
    one = data.camvid(source, data_dir=tmp_path / "prepared")
    two = data.camvid(data_dir=tmp_path / "prepared")
    assert one.fingerprint == two.fingerprint


def test_two_sources_are_not_mixed_up(files, tmp_path):
    one = sources.write(tmp_path / "one", files)
    two = sources.write(
        tmp_path / "two", files | {"CamVid/val/1.jpg": files["CamVid/val/2.jpg"]}
    )
    first, second = (
        data.camvid(source, data_dir=tmp_path / "prepared") for source in (one, two)
    )
    assert first.fingerprint != second.fingerprint
    with pytest.raises(ValueError, match=r"from 2 different sources .* to choose one"):
        data.camvid(data_dir=tmp_path / "prepared")
    again = data.camvid(one, data_dir=tmp_path / "prepared")
    assert again.fingerprint == first.fingerprint


def test_unknown_id(message, files):
    files["CamVid/testannot/1.png"] = sources.png(np.full((8, 12), 12, np.uint8))
    got = message(files)
    assert "/CamVid.zip: CamVid/testannot/1.png holds id 12: needed one of 0-11" in got


def test_image_without_mask(message, files):
    del files["CamVid/valannot/1.png"]
    assert "/CamVid.zip: CamVid/val/1.jpg has no mask: needed 1.*" in message(files)


def test_mask_of_another_size(message, files):
    files["CamVid/valannot/1.png"] = sources.png(np.zeros((12, 8), np.uint8))
    assert "CamVid/valannot/1.png is 8x12 pixels: needed 12x8" in message(files)


def test_broken_image(message, files):
    name = "CamVid/train/1.jpg"
    files[name] = files[name][:200]
    got = message(files)
    assert f"/CamVid.zip: {name} is broken: needed a complete image file" in got


def test_broken_zip_member(message, files, tmp_path):
    path = sources.zipped(tmp_path / "CamVid.zip", files)
    content = bytearray(path.read_bytes())
    at = content.find(files["CamVid/train/1.jpg"][-40:])
    content[at] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*train/1.jpg .*CRC-32"):
        data.camvid(path, data_dir=tmp_path / "prepared")


def test_truncated_zip(files, tmp_path):
    path = sources.zipped(tmp_path / "CamVid.zip", files)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"CamVid\.zip is not a complete zip"):
        data.camvid(path, data_dir=tmp_path / "prepared")


def test_missing_and_empty_source(tmp_path):
    with pytest.raises(
        ValueError, match=r"source .*nowhere does not exist: needed Cam"
    ):
        data.camvid(tmp_path / "nowhere", data_dir=tmp_path / "prepared")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no CamVid\.zip: .*got nothing"):
        data.camvid(tmp_path / "empty", data_dir=tmp_path / "prepared")


def test_empty_folder(message, files):
    few = {name: files[name] for name in files if "valannot" not in name}
    assert "CamVid/valannot is missing or empty: needed CamVid.zip" in message(few)
    few["CamVid/valannot/readme.txt"] = b""
    got = message(few)
    assert "CamVid/valannot holds no image: needed files ending in .png" in got
    assert "got readme.txt" in got


@pytest.mark.slow
def test_real_data(shared_data, tmp_path):
    prepared = data.camvid(shared_data / "camvid", data_dir=tmp_path)
    sizes = {split: len(examples) for split, examples in prepared.splits.items()}
    assert sizes == {"train": 367, "validation": 101, "test": 233}
    counts = np.zeros(256, int)
    for example in prepared.splits["validation"]:
        assert example["image"].shape == (360, 480, 3)
        counts += np.bincount(example["label"].ravel(), minlength=256)
    assert np.flatnonzero(counts).tolist() == [*range(11), IGNORE_INDEX]
    # Roads and buildings are frequent, poles and cyclists are not.
    assert counts[[1, 3]].min() > 10 * counts[[2, 10]].max()
