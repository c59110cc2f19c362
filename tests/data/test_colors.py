"""Masks whose classes are colors, and masks that cannot be meant as they are."""

import io

import numpy as np
import PIL.Image
import pytest

from segjax import data
from segjax.data.builders import colors
from segjax.errors import UserError
from tests.data import sources

BLACK, GREEN, RED = (0, 0, 0), (0, 255, 0), (255, 0, 0)


def drawn(rng, *palette):
    """A mask of random pixels, the first color the most common."""
    weights = 0.5 ** np.arange(len(palette))
    ids = rng.choice(len(palette), (8, 12), p=weights / weights.sum())
    return ids, np.array(palette, np.uint8)[ids]


def as_palette(ids, palette):
    picture = PIL.Image.fromarray(ids.astype(np.uint8), "P")
    picture.putpalette([channel for color in palette for channel in color])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def load(tmp_path, rng):
    """Loads masks beside random images; all in `train`."""

    def load(masks, more=None, **options):
        files = {f"masks/{name}": content for name, content in masks.items()}
        for name in masks:
            stem = name.partition(".")[0]
            files[f"images/{stem}.png"] = sources.png(sources.image(rng))
        source = sources.write(tmp_path / "mine", files | (more or {}))
        options = {"validation": 0.0, "test": 0.0} | options
        return data.folder(source, data_dir=tmp_path / "prepared", **options)

    return load


@pytest.fixture
def refused(load, tmp_path):
    def refused(*args, **options):
        with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
            load(*args, **options)
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


TABLES = {
    "numbers": b"0,0,0,soil\n0,255,0,crop\n255,0,0,weed\n",
    "header": b"\xef\xbb\xbfr,g,b,name\r\n0,0,0,soil\r\n0,255,0,crop\r\n255,0,0,weed",
    "name first": b"name,r,g,b\nsoil,0,0,0\ncrop,0,255,0\nweed,255,0,0\n",
    "hex": b"#000000,soil\n\n#00FF00,crop\n#ff0000,weed\n",
    "semicolons": b"0;0;0;soil\n0;255;0;crop\n255;0;0;weed\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_tables(load, rng, table):
    ids, pixels = drawn(rng, BLACK, GREEN, RED)
    made = load({"a.png": sources.png(pixels)}, {"classes.csv": TABLES[table]})
    assert made.classes == ("soil", "crop", "weed")
    np.testing.assert_array_equal(made.splits["train"][0]["label"], ids)


def test_a_table_elsewhere_orders_and_ignores(load, rng, tmp_path):
    ids, pixels = drawn(rng, BLACK, GREEN, RED)
    (tmp_path / "my.csv").write_bytes(b"255,0,0,weed\n0,255,0,\n0,0,0,Void\n")
    made = load({"a.png": sources.png(pixels)}, colors=tmp_path / "my.csv")
    assert made.classes == ("weed", "color #00ff00")
    want = np.array([255, 1, 0])[ids]
    np.testing.assert_array_equal(made.splits["train"][0]["label"], want)


def test_every_mode_of_a_color(load, rng):
    """Gray, palette and transparency are the colors that viewers show."""
    ids, pixels = drawn(rng, BLACK, (255, 255, 255), RED)
    gray = np.where(ids == 2, 0, ids)
    alpha = np.dstack([pixels, rng.integers(0, 256, (8, 12))]).astype(np.uint8)
    masks = {
        "a.png": sources.png(pixels),
        "b.png": sources.png((gray * 255).astype(np.uint8)),
        "c.png": as_palette(ids, [BLACK, (255, 255, 255), RED]),
        "d.png": sources.png(alpha),
        "e.tif": sources.png(pixels, "TIFF"),
    }
    made = load(masks)
    assert made.classes == ("color #000000", "color #ffffff", "color #ff0000")
    found = {e["name"]: e["label"] for e in made.splits["train"]}
    for name in "acde":
        np.testing.assert_array_equal(found[name], ids)
    np.testing.assert_array_equal(found["b"], gray)


def test_found_colors_are_ordered_by_pixels_and_printed(load, rng, capsys):
    _, one = drawn(rng, RED, BLACK)
    _, two = drawn(rng, RED, GREEN, BLACK)
    made = load({"a.png": sources.png(one), "b.png": sources.png(two)})
    every = np.concatenate([one, two]).reshape(-1, 3)
    values, counts = np.unique(every, axis=0, return_counts=True)
    order = values[np.argsort(-counts, kind="stable")]
    names = ["color #" + bytes(color.tolist()).hex() for color in order]
    assert list(made.classes) == names
    share = 100 * counts.max() / counts.sum()
    said = capsys.readouterr().err
    assert "3 colors became classes 0 to 2, the most common first: #ff0000" in said
    assert f"{share:.3g} %" in said


def test_palettes_that_agree_are_ids(load, rng):
    ids, _ = drawn(rng, BLACK, GREEN, RED)
    made = load(
        {
            "a.png": as_palette(ids, [BLACK, GREEN, RED]),
            "b.png": as_palette(ids % 2, [BLACK, GREEN]),
        }
    )
    assert made.classes == ("class 0", "class 1", "class 2")
    np.testing.assert_array_equal(made.splits["train"][0]["label"], ids)


@pytest.mark.parametrize(
    ("ids", "palette", "words"),
    [
        ([0, 1], [BLACK, RED], "index 1 is #00ff00 in masks/a.png and #ff0000 in"),
        ([0, 2], [BLACK, RED, GREEN], "#00ff00 is index 1 in masks/a.png and 2 in"),
    ],
)
def test_palettes_that_differ_are_refused(refused, ids, palette, words):
    first, second = np.array([[0, 1] * 6] * 8), np.array([ids * 6] * 8)
    masks = {
        "a.png": as_palette(first, [BLACK, GREEN]),
        "b.png": as_palette(second, palette),
    }
    got = refused(masks)
    assert "the masks in mine have different palettes" in got
    assert words in got


def test_jpeg_masks_are_refused(refused, rng):
    _, pixels = drawn(rng, BLACK, GREEN)
    mask = {"a.jpg": sources.png(pixels, "JPEG")}
    assert "has lossy compression (JPEG)" in refused(mask)


def test_jpeg_noise_is_refused(refused, rng):
    _, pixels = drawn(rng, BLACK, GREEN)
    large = pixels.repeat(8, 0).repeat(8, 1)
    noisy = np.array(PIL.Image.open(io.BytesIO(sources.png(large, "JPEG"))))
    got = refused({"a.png": sources.png(noisy)})
    assert "needed at most 64" in got or "nearly" in got
    large[0, 0] = (0, 250, 3)
    got = refused({"b.png": sources.png(large), "a.png": sources.png(large)})
    assert "have 2 pixels of #00fa03, which is nearly #00ff00" in got


def test_a_color_that_is_not_in_the_table(refused, rng):
    _, pixels = drawn(rng, BLACK, GREEN, RED)
    pixels[3, 5] = (0, 254, 0)
    got = refused({"a.png": sources.png(pixels)}, {"classes.csv": TABLES["hex"]})
    assert "mine/masks/a.png has the color #00fe00 at x 5, y 3: needed one of" in got
    assert "#000000, #00ff00, #ff0000" in got


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"0,0,0,a\n0,0,0,b\n", "has the color #000000 in two rows"),
        (b"0,0,0,a\n1,0,0,a\n", "has the name a in two rows"),
        (b"0,0,0,a\n1,0,a\n", "row 2 is '1,0,a': needed rows r,g,b,name"),
        (b"0,0,0,a\n0,0,256,b\n", "row 2 is '0,0,256,b'"),
        (b"0,0,0,void\n", "names no class"),
        (b"", "names no class"),
        (b"0,0,0,\x1b[31m\n", "class name"),
        ("0,0,0,Bär".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_tables_that_are_refused(table, words):
    with pytest.raises(UserError, match=r"^classes.csv[^\n]+$") as caught:
        colors.read_table(table, "classes.csv")
    assert words in str(caught.value)


def test_two_sources_of_classes(refused, rng, tmp_path):
    _, pixels = drawn(rng, BLACK, GREEN)
    mask = {"a.png": sources.png(pixels)}
    table = {"classes.csv": b"0,0,0,a\n0,255,0,b\n"}
    assert "needed one" in refused(mask, table | {"classes.txt": b"a\nb"})
    (tmp_path / "mine/classes.txt").unlink()
    assert "needed one" in refused(mask, table, ids=(0, 1))
    assert "has classes.csv and class_dict.csv" in refused(
        mask, {"class_dict.csv": b"0,0,0,a\n0,255,0,b\n"}
    )
    got = refused(mask, colors=tmp_path / "none.csv")
    assert "cannot read none.csv (No such file" in got


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0], "hold only class 0: needed at least two classes"),
        ([2], "hold only class 2"),
        ([255], "all other pixels would be ignored"),
        ([1, 255], "hold only class 1"),
    ],
)
def test_masks_of_one_class_are_refused(refused, values, words):
    mask = np.array([values * (12 // len(values))] * 8, np.uint8)
    assert words in refused({f"{i}.png": sources.png(mask) for i in range(2)})


def test_masks_without_objects_or_classes_are_counted(load, capsys):
    values = {"a": [0, 1], "b": [0, 0], "c": [255, 255], "d": [0, 255]}
    masks = {
        f"{name}.png": sources.png(np.array([pair * 6] * 8, np.uint8))
        for name, pair in values.items()
    }
    load(masks)
    said = capsys.readouterr().err
    assert "note: masks of ignored pixels only, which teach nothing: 1 of 4" in said
    assert "(masks/c.png)." in said
    assert "masks of class 0 only: 2 of 4 (masks/b.png, masks/d.png)." in said
