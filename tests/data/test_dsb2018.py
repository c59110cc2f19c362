import numpy as np
import pytest

from segjax import data
from segjax.data.builders import dsb2018
from tests.data import sources


def cell(rng, kind, name, *, where="stage1_train"):
    """An image of a kind, with two nuclei."""
    if kind == "fluorescence":
        image = np.repeat(rng.integers(0, 60, (16, 20, 1)), 3, axis=-1)
    elif kind == "bright":
        image = np.repeat(rng.integers(180, 255, (16, 20, 1)), 3, axis=-1)
    else:
        image = rng.integers(0, 255, (16, 20, 3))
    image = np.concatenate([image, np.full((16, 20, 1), 255)], -1).astype(np.uint8)
    one, two = np.zeros((2, 16, 20), np.uint8)
    one[1:4, 1:6] = 255
    two[8:12, 7:9] = 255
    return {
        f"{where}/{name}/images/{name}.png": sources.png(image),
        f"{where}/{name}/masks/a.png": sources.png(one),
        f"{where}/{name}/masks/b.png": sources.png(two),
    }


@pytest.fixture
def parts(rng):
    """Files of the two zips: 12 and 2 fluorescence images, 3 and 1 others."""
    train, test = {}, {"stage1_solution.csv": b"not read"}
    for i in range(12):
        train |= cell(rng, "fluorescence", f"dark{i}")
    for i, kind in enumerate(["bright", "stained", "stained"]):
        train |= cell(rng, kind, f"other{i}")
    for i, kind in enumerate(["fluorescence", "fluorescence", "bright"]):
        test |= cell(rng, kind, f"test{i}", where="stage1_test")
    return train, test


def write(root, parts):
    for name, files in zip(("stage1_train", "stage1_test"), parts, strict=True):
        sources.zipped(root / f"{name}.zip", files)
    return root


def names(prepared):
    return {k: [e["name"] for e in v] for k, v in prepared.splits.items()}


def test_modalities_and_splits(parts, tmp_path):
    source = write(tmp_path / "source", parts)
    dark = names(data.dsb2018(source, data_dir=tmp_path / "prepared"))
    assert {k: len(v) for k, v in dark.items()} == {
        "train": 11,
        "validation": 1,
        "test": 2,
    }
    assert all(n.startswith("dark") for n in dark["train"] + dark["validation"])
    assert sorted(dark["test"]) == ["test0", "test1"]
    all_of_it = names(
        data.dsb2018(source, modality="all", data_dir=tmp_path / "prepared")
    )
    assert len(all_of_it["train"] + all_of_it["validation"]) == 15
    assert sorted(all_of_it["test"]) == ["test0", "test1", "test2"]
    assert set(dark["validation"]) <= set(all_of_it["validation"])


def test_a_modality_without_images(parts, tmp_path):
    gray = [
        {k: v for k, v in part.items() if "/other" not in k and "/test2" not in k}
        for part in parts
    ]
    source = write(tmp_path / "source", gray)
    both = [
        names(data.dsb2018(source, modality=kind, data_dir=tmp_path / "prepared"))
        for kind in ("fluorescence", "all")
    ]
    assert both[0] == both[1]
    assert len(both[0]["test"]) == 2


def test_one_map_of_all_nuclei(parts, tmp_path):
    source = write(tmp_path / "source", parts)
    prepared = data.dsb2018(source, data_dir=tmp_path / "prepared")
    assert prepared.classes == ("background", "nucleus")
    expected = np.zeros((16, 20), np.uint16)
    expected[1:4, 1:6] = 1
    expected[8:12, 7:9] = 2
    example = prepared.splits["train"][0]
    np.testing.assert_array_equal(example["instances"], expected)
    assert example["instances"].dtype == np.uint16
    np.testing.assert_array_equal(example["label"], expected > 0)
    assert example["image"].shape == (16, 20, 3)


def test_more_nuclei_than_a_byte_counts(parts, rng, tmp_path):
    for i in range(300):
        mask = np.zeros((16, 20), np.uint8)
        mask.flat[i] = 255
        parts[1][f"stage1_test/test0/masks/m{i:03d}.png"] = sources.png(mask)
    source = write(tmp_path / "source", parts)
    prepared = data.dsb2018(source, data_dir=tmp_path / "prepared")
    example = {e["name"]: e for e in prepared.splits["test"]}["test0"]
    # a.png and b.png come first and are covered by the next 300, one pixel each.
    assert example["instances"].ravel()[:300].tolist() == list(range(3, 303))


def test_unpacked_and_without_top_folder(parts, tmp_path):
    packed = write(tmp_path / "packed", parts)
    unpacked = sources.write(tmp_path / "unpacked", parts[0] | parts[1])
    bare = [{k.partition("/")[2] or k: v for k, v in p.items()} for p in parts]
    kaggle = write(tmp_path / "kaggle", bare)
    prepared = [
        data.dsb2018(source, data_dir=tmp_path / "prepared").fingerprint
        for source in (packed, packed / "stage1_train.zip", unpacked, kaggle)
    ]
    assert len(set(prepared)) == 1


def test_messages(parts, tmp_path):
    train, test = parts

    def message(changes):
        changed = {k: v for k, v in (train | changes).items() if v is not None}
        source = write(tmp_path / "source", (changed, test))
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            data.dsb2018(source, data_dir=tmp_path / "prepared")
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(caught.value).replace(str(tmp_path), "")

    one = "stage1_train/dark3"
    without = message({f"{one}/masks/a.png": None, f"{one}/masks/b.png": None})
    shown = "/source/stage1_train.zip: stage1_train/dark3"
    assert f"{shown}/images/dark3.png has no mask" in without
    small = message({f"{one}/masks/a.png": sources.png(np.zeros((4, 4), np.uint8))})
    assert f"{shown}/masks/a.png is 4x4 pixels: needed 20x16" in small
    broken = message({f"{one}/masks/a.png": train[f"{one}/masks/a.png"][:50]})
    assert f"{shown}/masks/a.png is broken" in broken
    imageless = message({f"{one}/images/dark3.png": None})
    assert f"{shown} holds 0 images: needed one" in imageless
    with pytest.raises(ValueError, match=r"modality must be one of .*'dark'"):
        dsb2018.dsb2018.__wrapped__(modality="dark")  # type: ignore


@pytest.mark.parametrize("unpacked", [False, True])
def test_half_a_download(parts, tmp_path, unpacked):
    source = sources.zipped(tmp_path / "half" / "stage1_train.zip", parts[0])
    if unpacked:
        source = sources.write(tmp_path / "unpacked", parts[0])
    for place in (source, tmp_path / "half"):
        with pytest.raises(
            ValueError, match=r"has no stage1_test\.zip: .*got stage1_tr"
        ):
            data.dsb2018(place, data_dir=tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


@pytest.mark.slow
def test_real_data(shared_data, tmp_path):
    prepared = data.dsb2018(shared_data / "dsb2018", data_dir=tmp_path)
    sizes = {split: len(examples) for split, examples in prepared.splits.items()}
    assert sizes == {"train": 487, "validation": 54, "test": 53}
    everything = data.dsb2018(modality="all", data_dir=tmp_path)
    sizes = {split: len(examples) for split, examples in everything.splits.items()}
    assert sizes["train"] + sizes["validation"] == 664
    assert sizes["test"] == 65
    # 4,152 masks in the zip, none of them empty or covered by others.
    num_objects = [
        len(np.unique(e["instances"])) - 1 for e in everything.splits["test"]
    ]
    assert sum(num_objects) == 4_152
    for example in prepared.splits["test"]:
        nuclei = example["label"] == 1
        assert example["image"][nuclei].mean() > example["image"][~nuclei].mean()
