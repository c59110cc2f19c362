"""Pictures that are turned, of phones, damaged or no pictures at all.

The oracle of turns is Pillow's `exif_transpose`, on files that it reads itself.
"""

import io
import os
import struct
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile

from segjax import data, inference
from segjax.data.builders import masks
from segjax.data.builders.sources import Folder
from segjax.files import images, reading
from segjax.inference.reading import image_size

SIZE = (6, 9)
TURN = 0x0112


def exif(orientation):
    made = PIL.Image.Exif()
    made[TURN] = orientation
    return made


def pictures(rng):
    """Pixels of each kind by file name."""
    gray = rng.integers(0, 250, SIZE).astype(np.uint8)
    yield "gray.png", gray
    yield "rgb.png", rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    yield "deep.png", rng.integers(0, 60_000, SIZE).astype(np.uint16)
    yield "rgb.tif", rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    yield "deep.tif", rng.integers(0, 60_000, SIZE).astype(np.uint16)
    yield "float.tif", rng.normal(size=SIZE).astype(np.float32)
    yield "gray.tif", gray


def upright(pixels, orientation):
    """By Pillow: of a PNG with 8 bits, whose pixels are the numbers of ours."""
    number = np.arange(pixels.shape[0] * pixels.shape[1], dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(number.reshape(SIZE)).save(file, "PNG", exif=exif(orientation))
    with PIL.Image.open(file) as picture:
        places = np.asarray(PIL.ImageOps.exif_transpose(picture))
    return pixels.reshape(-1, *pixels.shape[2:])[places]


@pytest.mark.parametrize("orientation", range(9))
def test_every_kind_of_file_gets_its_orientation(rng, tmp_path, orientation):
    for name, pixels in pictures(rng):
        path = tmp_path / name
        if name.endswith(".png"):
            PIL.Image.fromarray(pixels).save(path, exif=exif(orientation))
        else:
            tag = [(TURN, "H", 1, orientation, True)]
            tifffile.imwrite(path, pixels, extratags=tag)
        want = upright(pixels, orientation)
        want = want if want.ndim == 3 else want[..., None]
        channels = want.shape[-1]
        got = inference.read_image(path, channels=channels)
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert image_size(path, channels=channels) == want.shape[:2]
        seen = data.read_image(path)
        want = want.repeat(3, -1) if name.startswith("gray") else want
        np.testing.assert_array_equal(seen, want, err_msg=name)
        if want.dtype.kind != "f" and not name.startswith("rgb"):  # As a mask.
            ids = masks.read_ids(Folder(tmp_path), name, seen)
            np.testing.assert_array_equal(ids, want[..., 0], err_msg=name)


def jpeg(pixels, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_photographs_of_several_pictures_give_the_first(rng, tmp_path):
    one, two = rng.integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)
    first, second = PIL.Image.fromarray(one), PIL.Image.fromarray(two)
    path = tmp_path / "phone.jpg"
    first.save(path, "MPO", save_all=True, append_images=[second], exif=exif(6))
    with PIL.Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("MPO", 2)
        want = np.asarray(PIL.ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(data.read_image(path), want)
    np.testing.assert_array_equal(inference.read_image(path, channels=3), want)


def app1(body):
    """A JPEG with this EXIF segment."""
    plain = jpeg(np.zeros((*SIZE, 3), np.uint8))
    segment = b"Exif\0\0" + body
    return (
        plain[:2]
        + b"\xff\xe1"
        + struct.pack(">H", len(segment) + 2)
        + segment
        + (plain[2:])
    )


# Pillow only warns of such data.
lenient = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
HEAD = b"II*\0" + struct.pack("<I", 8)


@lenient
@pytest.mark.parametrize(
    "body",
    [
        b"garbage!",
        b"II*\0",
        HEAD,
        b"II*\0" + struct.pack("<I", 2**31),
        HEAD + struct.pack("<H", 40) + bytes(20),
        # A maker's name beyond the end, before the orientation that Pillow then skips.
        HEAD + struct.pack("<H", 2) + struct.pack("<HHII", 0x010F, 2, 99, 4000),
    ],
)
def test_damaged_exif_is_one_line(tmp_path, body):
    path = tmp_path / "a.jpg"
    path.write_bytes(app1(body))
    for read in (data.read_image, lambda p: inference.read_image(p, channels=3)):
        with pytest.raises(ValueError, match=r"a\.jpg has damaged EXIF data \([^\n]*$"):
            read(path)
    with pytest.raises(ValueError, match="damaged EXIF"):
        image_size(path, channels=3)


@lenient
def test_exif_truncated_after_the_orientation_is_applied(tmp_path):
    entries = struct.pack("<HHII", 0x010F, 2, 99, 4000)  # A name that is cut off.
    entries += struct.pack("<HHIHxx", TURN, 3, 1, 6)
    (tmp_path / "a.jpg").write_bytes(app1(HEAD + struct.pack("<H", 2) + entries))
    assert data.read_image(tmp_path / "a.jpg").shape == (SIZE[1], SIZE[0], 3)


@lenient
def test_invalid_orientations_are_ignored(tmp_path):
    for body in (b"", HEAD + struct.pack("<H", 0)):
        (tmp_path / "a.jpg").write_bytes(app1(body))
        assert data.read_image(tmp_path / "a.jpg").shape == (*SIZE, 3)


def test_changed_bytes_of_a_png_are_detected(rng, tmp_path):
    file = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, SIZE).astype(np.uint8)).save(file, "PNG")
    whole = file.getvalue()
    for place in range(8, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(ValueError, match=r"^a\.png "):
            images.decode(bytes(changed), "a.png")


def test_other_formats_start_no_program(tmp_path):
    """Pillow would run another program for PostScript, whatever the suffix."""
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (8, 8)).save(path, "EPS")
    with pytest.raises(ValueError, match="cannot identify"):
        data.read_image(path)
    with pytest.raises(ValueError, match="cannot identify"):
        inference.read_image(path, channels=3)


def test_tiffs_name_no_other_file(tmp_path, monkeypatch):
    """OME-TIFF may refer to other files, which are not opened."""
    pixels = np.zeros((2, *SIZE), np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, metadata={"axes": "CYX"})
    opened = []
    monkeypatch.setattr(
        tifffile.FileHandle, "__init__", _recording(tifffile.FileHandle, opened)
    )
    data.read_image(tmp_path / "a.ome.tif")
    assert opened
    assert not [x for x in opened if isinstance(x, str | os.PathLike)]


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_form_a_cycle(tmp_path, big):
    """Two pages, the second of which links to itself."""
    path = tmp_path / "a.tif"
    pages = np.zeros((2, *SIZE), np.uint16)
    tifffile.imwrite(path, pages, photometric="minisblack", metadata=None, bigtiff=big)
    with tifffile.TiffFile(path) as file:
        one, two = (page.offset for page in file.pages)
        tags = len(file.pages[1].tags)
    content = bytearray(path.read_bytes())
    place = two + (8 + 20 * tags if big else 2 + 12 * tags)
    content[place : place + 4] = two.to_bytes(4, "little")
    path.write_bytes(bytes(content))
    assert one != two
    with pytest.raises(ValueError, match=r"a\.tif"):
        data.read_image(path)
    with pytest.raises(ValueError, match=r"a\.tif .*cycle"):
        inference.read_image(path, channels=2)


def _recording(handle, opened):
    plain = handle.__init__

    def init(self, file, *args, **options):
        opened.append(file)
        plain(self, file, *args, **options)

    return init


def test_large_pictures_need_no_global_limit(tmp_path):
    """Pillow warns of 90 million pixels, and rejects twice as many."""
    path = tmp_path / "a.png"
    PIL.Image.new("1", (14_000, 14_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.size(path.read_bytes(), "a.png") == (14_000, 14_000)


def test_reading(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert reading.read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(ValueError, match="has 5 bytes: needed at most 4"):
        reading.read_bytes(path, max_bytes=4)
    with pytest.raises(FileNotFoundError) as error:
        reading.read_bytes(tmp_path / "none")
    assert str(error.value.filename) == str(tmp_path / "none")
    with pytest.raises(ValueError, match="is a device"):
        reading.read_bytes(type(path)("/dev/null"))
    with pytest.raises((ValueError, IsADirectoryError), match=r"folder|directory"):
        reading.read_bytes(tmp_path)


@pytest.mark.parametrize("height", [1, 255, 256, 257, 600])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_pixels_equal_numpys_conversion(mode, height):
    rng = np.random.default_rng(height)
    gray = PIL.Image.fromarray(rng.integers(0, 255, (height, 7), np.uint8))
    picture = gray.convert("I").convert(mode) if mode == "I;16" else gray.convert(mode)
    want, got = np.array(picture), images.pixels(picture)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    assert got.flags.writeable
