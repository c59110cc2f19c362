import os

import numpy as np
import PIL.Image
import pytest

from segjax import data
from tests.data import sources


@pytest.fixture
def files(rng):
    """Ten images, and masks with the ids 0, 1, 2 and 255."""
    found = {}
    for i in range(10):
        found[f"images/{i}.png"] = sources.png(sources.image(rng))
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 12))
        found[f"masks/{i}.png"] = sources.png(mask)
    return found


def pixels(content):
    return np.array(PIL.Image.open(content))


@pytest.fixture
def load(tmp_path):
    """Writes files, and reads them back as a data set."""

    def load(files, **options):
        source = sources.write(tmp_path / "mine", files)
        return data.folder(source, data_dir=tmp_path / "prepared", **options)

    return load


@pytest.fixture
def message(load, tmp_path):
    """The one-line message for bad files; checks that no file is left."""

    def message(files, **options):
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            load(files, **options)
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(caught.value).replace(str(tmp_path), "")

    return message


def names(prepared):
    return {k: [e["name"] for e in v] for k, v in prepared.splits.items()}


def test_stores_what_the_files_hold(load, files, tmp_path):
    prepared = load(files)
    assert prepared.classes == ("class 0", "class 1", "class 2")
    for examples in prepared.splits.values():
        for example in examples:
            for key, kind in (("image", "images"), ("label", "masks")):
                file = tmp_path / "mine" / kind / f"{example['name']}.png"
                np.testing.assert_array_equal(example[key], pixels(file))
                assert example[key].dtype == np.uint8


def test_splits_are_seeded_and_cover_all(load, files):
    one, two, other = load(files), load(files), load(files, seed=1)
    assert {k: len(v) for k, v in names(one).items()} == {
        "train": 8,
        "validation": 1,
        "test": 1,
    }
    assert names(one) == names(two) != names(other)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    everything = [name for split in names(one).values() for name in split]
    assert sorted(everything) == [str(i) for i in range(10)]
    sizes = {k: len(v) for k, v in names(load(files, validation=0.0, test=0.5)).items()}
    assert sizes == {"train": 5, "test": 5}


def test_three_images_make_three_splits(load, files):
    few = {name: files[name] for name in files if name[-5] in "123"}
    assert {k: len(v) for k, v in names(load(few)).items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


@pytest.mark.parametrize("validation", ["validation", "val", None])
def test_splits_by_folder(load, files, validation):
    places = {"train": "0123456", validation: "78", "test": "9"}
    arranged = {
        f"{place}/{name}": content
        for place, stems in places.items()
        for name, content in files.items()
        if name[-5] in stems and place
    }
    got = names(load(arranged))
    assert got["test"] == ["9"]
    if validation:
        assert got["validation"] == ["7", "8"]
        assert got["train"] == list("0123456")
    else:
        assert len(got["validation"]) == 1
        assert sorted(got["train"] + got["validation"]) == list("0123456")


def test_a_changed_file_is_prepared_anew(load, files, tmp_path):
    before = load(files).fingerprint
    changed = files | {"masks/3.png": files["masks/4.png"]}
    after = load(changed)
    assert after.fingerprint != before
    label = {e["name"]: e["label"] for s in after.splits.values() for e in s}["3"]
    expected = pixels(tmp_path / "mine" / "masks" / "4.png")
    np.testing.assert_array_equal(label, expected)


def test_a_zip_reads_like_the_folder(load, files, tmp_path):
    inside = {f"mine/{name}": content for name, content in files.items()}
    inside |= {"__MACOSX/mine/images/._0.png": b"junk"}
    path = sources.zipped(tmp_path / "mine.zip", inside)
    zipped = data.folder(path, data_dir=tmp_path / "prepared")
    assert zipped.fingerprint == load(files).fingerprint


def test_classes_txt_names_the_classes(load, files):
    text = b"\xef\xbb\xbfsky\r\nroad\n\n car \n"
    assert load(files | {"classes.txt": text}).classes == ("sky", "road", "car")


def test_classes_txt_changes_nothing_silently(load, files):
    one = load(files | {"classes.txt": b"a\nb\nc"})
    two = load(files | {"classes.txt": b"a\nb\nd"})
    assert (one.classes, two.classes) == (("a", "b", "c"), ("a", "b", "d"))


@pytest.mark.parametrize("mode", ["P", "I;16", "1", "RGB", "RGBA", "LA"])
def test_masks_in_every_mode(load, files, tmp_path, mode):
    ids = np.array([[0, 1] * 6] * 8, np.uint8)
    if mode == "P":
        mask = PIL.Image.fromarray(ids, "L").convert("P")
        mask.putdata(ids.ravel().tolist())
        mask.putpalette([200, 0, 0, 0, 200, 0])
    elif mode == "I;16":
        mask = PIL.Image.fromarray(ids.astype(np.uint16))
    elif mode == "1":
        mask = PIL.Image.fromarray(ids.astype(bool))
    else:
        mask = PIL.Image.fromarray(ids).convert(mode)
    mask.save(tmp_path / "mask.png")
    content = (tmp_path / "mask.png").read_bytes()
    prepared = load({k: content if "mask" in k else v for k, v in files.items()})
    np.testing.assert_array_equal(prepared.splits["test"][0]["label"], ids)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK"])
def test_images_in_every_mode(load, files, tmp_path, mode):
    image = PIL.Image.fromarray(sources.image(np.random.default_rng(3)))
    image = image.convert(mode)
    name = "0.tif" if mode == "CMYK" else "0.png"
    image.save(tmp_path / name)
    del files["images/0.png"]
    files[f"images/{name}"] = (tmp_path / name).read_bytes()
    prepared = load(files, validation=0.0, test=0.0)
    np.testing.assert_array_equal(
        prepared.splits["train"][0]["image"], np.array(image.convert("RGB"))
    )


def test_black_and_white_masks(load, message, files):
    mask = np.array([[0, 255] * 6] * 8, np.uint8)
    files |= {k: sources.png(mask) for k in files if "masks" in k}
    for extra in ({}, {"classes.txt": b"background\nroad"}):
        got = message(files | extra)
        assert "hold only the values 0, 255" in got
        assert "pass ids=(0, 255) (--ids 0 255)" in got
    prepared = load(files, ids=(0, 255))
    assert prepared.classes == ("background", "road")  # From classes.txt.
    label = prepared.splits["train"][0]["label"]
    np.testing.assert_array_equal(label, mask // 255)


def test_ids_in_large_steps(load, message, files):
    mask = np.array([[0, 100, 200] * 4] * 8, np.uint8)
    files |= {k: sources.png(mask) for k in files if "masks" in k}
    assert "pass ids=(0, 100, 200) (--ids 0 100 200)" in message(files)
    prepared = load(files, ids=(0, 100, 200))
    assert prepared.classes == ("class 0", "class 1", "class 2")
    np.testing.assert_array_equal(prepared.splits["test"][0]["label"], mask // 100)


def test_another_ignore_index(load, files):
    label = load(files, ids=(1, 2, 255), ignore_index=0).splits["test"][0]["label"]
    assert set(np.unique(label)) == {0, 1, 2, 255}
    assert load(files, ids=(1, 2, 255), ignore_index=0).classes == (
        "class 0",
        "class 1",
        "class 2",
    )


def test_id_beyond_classes_txt(message, files):
    files["masks/4.png"] = sources.png(np.full((8, 12), 7, np.uint8))
    got = message(files | {"classes.txt": b"a\nb\nc"})
    assert "/mine/masks/4.png holds id 7: needed one of 0-2, 255" in got
    assert "/mine/classes.txt names 3 classes" in got


def test_missing_mask(message, files):
    files["masks/4_mask.png"] = files.pop("masks/4.png")
    got = message(files)
    assert "/mine/images/4.png has no mask: needed 4.* in /mine/masks" in got
    assert "(the nearest is masks/4_mask.png)" in got


def test_missing_image(message, files):
    del files["images/4.png"]
    assert "/mine/masks/4.png has no image" in message(files)


def test_two_images_of_one_stem(message, files, rng):
    files["images/4.jpg"] = sources.png(sources.image(rng), "JPEG")
    assert "have the same stem" in message(files)


def test_mask_of_another_size(message, files):
    files["masks/4.png"] = sources.png(np.zeros((8, 11), np.uint8))
    got = message(files)
    assert "/mine/masks/4.png is 11x8 pixels: needed 12x8" in got


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_broken_file(message, files, kind, damage):
    name = f"{kind}/4.png"
    whole = files[name]
    files[name] = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>404</html>",
        "flipped": whole[:30] + bytes([whole[30] ^ 255]) + whole[31:],
    }[damage]
    assert f"/mine/{name} is broken: needed a complete image file" in message(files)


def test_color_mask(message, files, rng):
    files["masks/4.png"] = sources.png(sources.image(rng))
    got = message(files)
    assert "/mine/masks/4.png and those before it have" in got
    assert "colors: needed at most 64, one for each class" in got
    for given in ({"ids": (0, 1, 2)}, {}):
        names = {} if given else {"classes.txt": b"a\nb\nc"}
        got = message(files | names, **given)
        assert "/mine/masks/4.png is a color image: needed one channel" in got
        assert "classes.csv" in got


def test_many_pages(message, files, tmp_path, rng):
    pages = [PIL.Image.fromarray(sources.image(rng)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    del files["images/4.png"]
    files["images/4.tif"] = (tmp_path / "a.tif").read_bytes()
    assert "/mine/images/4.tif has 3 pages" in message(files)


def test_empty_folders(message, tmp_path):
    (tmp_path / "mine").mkdir()
    got = message({})
    assert "/mine holds no image: needed the folders images/ and masks/" in got
    assert got.endswith("got nothing.")
    (tmp_path / "mine" / "images").mkdir()
    (tmp_path / "mine" / "masks").mkdir()
    assert "/mine/images holds no image: needed files ending in .png" in message({})


def test_missing_source(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"did you mean .*photos\?") as caught:
        data.folder(tmp_path / "photo", data_dir=tmp_path / "prepared")
    assert "does not exist: needed the folders images/ and masks/" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"validation": 0.5, "test": 0.5}, "at least 0 with a sum below 1"),
        ({"test": -0.1}, "at least 0 with a sum below 1"),
        ({"ids": (0, 0)}, "different values"),
        ({"ids": ()}, "different values"),
    ],
)
def test_options_are_checked(message, files, options, expected):
    assert expected in message(files, **options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(message, files, tmp_path):
    sources.write(tmp_path / "mine", files)
    (tmp_path / "mine" / "masks" / "4.png").chmod(0)
    del files["masks/4.png"]
    assert "cannot read /mine/masks/4.png" in message(files)
