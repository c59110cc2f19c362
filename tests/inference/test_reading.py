"""Reading images for a model: pixels as stored, or an error."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax import inference
from segjax.inference.reading import image_size


def random(*shape, dtype=np.uint8):
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def read(path, channels):
    image = inference.read_image(path, channels=channels)
    assert image_size(path, channels=channels) == image.shape[:2]
    return image


def save_tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def test_eight_bits_by_pillow(tmp_path):
    rgb, gray, rgba = random(5, 7, 3), random(5, 7), random(5, 7, 4)
    for name, array in (("rgb", rgb), ("gray", gray), ("rgba", rgba)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(read(tmp_path / "rgb.png", 3), rgb)
    np.testing.assert_array_equal(read(tmp_path / "gray.png", 1), gray[..., None])
    want = gray[..., None].repeat(3, -1)
    np.testing.assert_array_equal(read(tmp_path / "gray.png", 3), want)
    np.testing.assert_array_equal(read(tmp_path / "rgba.png", 4), rgba)
    np.testing.assert_array_equal(read(tmp_path / "rgba.png", 3), rgba[..., :3])
    # Colors are never converted to gray: the caller raises an error.
    np.testing.assert_array_equal(read(tmp_path / "rgb.png", 1), rgb)


def test_palettes_are_looked_up(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([9, 8, 7, 1, 2, 3])
    picture.save(tmp_path / "p.png")
    want = [[[9, 8, 7], [1, 2, 3]]]
    np.testing.assert_array_equal(read(tmp_path / "p.png", 3), want)


def test_exif_orientation_is_applied(tmp_path):
    rgb = random(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees clockwise.
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    want = np.rot90(rgb, -1)
    np.testing.assert_array_equal(read(tmp_path / "turned.png", 3), want)


def test_more_bits_as_stored(tmp_path):
    gray = random(5, 7, dtype=np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read(tmp_path / "gray.png", 1), gray[..., None])
    five = random(5, 7, 5, dtype=np.uint16)
    first = np.moveaxis(five, -1, 0)
    for name, array, options in (
        ("stacked", first, {"photometric": "minisblack"}),
        ("named", first, {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        ("pages", five, {}),
        ("last", five, {"planarconfig": "contig", "photometric": "minisblack"}),
    ):
        path = save_tiff(tmp_path / f"{name}.tif", array, **options)
        got = read(path, 5)
        assert got.dtype == np.uint16, name
        np.testing.assert_array_equal(got, five, err_msg=name)
    wide = random(5, 7, 2, dtype=np.float32)
    np.save(tmp_path / "wide.npy", wide.astype(">f4"))
    got = read(tmp_path / "wide.npy", 2)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wide)
    path = save_tiff(tmp_path / "plain.tif", wide[..., 0])
    np.testing.assert_array_equal(read(path, 1), wide[..., :1])


def test_compressed_tiff(tmp_path):
    gray = random(5, 7, dtype=np.uint16)
    Image.fromarray(gray).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "lzw.tif", 1), gray[..., None])


def png_of_16_bits_with_colors():
    import struct
    import zlib

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\0" + b"\1\2" * 3)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_files_that_cannot_be_an_image(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "deep.png").write_bytes(png_of_16_bits_with_colors())
    save_tiff(tmp_path / "volume.tif", random(2, 3, 5, 7), photometric="minisblack")
    np.save(tmp_path / "code.npy", np.array([{}], object), allow_pickle=True)
    frames = [Image.fromarray(x) for x in random(2, 4, 4)]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=[frames[1]])
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=[frames[1]])
    for name, words in (
        ("bad.png", "cannot identify"),
        ("deep.png", "16-bit PNG with color"),
        ("volume.tif", r"one image .* got \[2, 3, 5, 7\]"),
        ("code.npy", "allow_pickle"),
        ("two.webp", "2 pages"),
        ("two.gif", "2 pages"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            inference.read_image(tmp_path / name, channels=3)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        inference.read_image(tmp_path / "none.png", channels=3)
    with pytest.raises(ValueError, match=r"bad\.png"):
        image_size(tmp_path / "bad.png", channels=3)
