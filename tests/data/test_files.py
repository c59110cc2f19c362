"""Images of every kind, read by `data.read_image` and `data.folder`."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile

from segjax import data
from segjax.data.builders import packing
from segjax.data.builders.checks import ConsistencyCheck, ExampleFacts
from tests.data import sources

SIZE = (6, 8)


def deep(rng, *channels, dtype=np.uint16):
    return rng.integers(200, 12_000, (*SIZE, *channels)).astype(dtype)


def tiff(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.fixture
def saved(rng, tmp_path):
    """Files by kind, and their content."""
    gray, bands, real = deep(rng), deep(rng, 5), deep(rng, 2, dtype=np.float32) - 999.5
    small = rng.integers(0, 256, (*SIZE, 5)).astype(np.uint8)
    contig = {"photometric": "minisblack", "planarconfig": "contig"}
    (tmp_path / "gray.png").write_bytes(sources.png(gray))
    PIL.Image.fromarray(gray).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.save(tmp_path / "bands.npy", bands)
    np.save(tmp_path / "flat.npy", small[..., 0])
    np.save(tmp_path / "double.npy", real.astype(np.float64))
    np.save(tmp_path / "int64.npy", gray.astype(np.int64))
    tiff(tmp_path / "gray.tif", gray)
    tiff(tmp_path / "big.tif", gray.astype(">u2"), byteorder=">")
    tiff(tmp_path / "rgb.tif", bands[..., :3], photometric="rgb")
    tiff(tmp_path / "bands.tiff", bands, **contig, compression="zlib")
    last_first = np.moveaxis(bands, -1, 0)
    tiff(tmp_path / "planes.tif", last_first, **contig | {"planarconfig": "separate"})
    named = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    tiff(tmp_path / "imagej.tif", last_first, imagej=True, **named)
    tiff(tmp_path / "small.tif", small, **contig)
    tiff(tmp_path / "float.tif", real, **contig)
    tiff(tmp_path / "one.tif", real[..., 0])
    nir = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    tiff(tmp_path / "nir.tif", small[..., :4], **nir)
    five = dict.fromkeys(("bands.npy", "bands.tiff", "planes.tif", "imagej.tif"), bands)
    one = ("gray.png", "gray.tif", "big.tif", "lzw.tif", "int64.npy")
    return (
        dict.fromkeys(one, gray[..., None])
        | five
        | {
            "rgb.tif": bands[..., :3],
            "small.tif": small,
            "nir.tif": small[..., :4],
            "flat.npy": small[..., :1],
            "float.tif": real,
            "double.npy": real,
            "one.tif": real[..., :1],
        }
    )


def test_values_are_unchanged(saved, tmp_path):
    for name, expected in saved.items():
        got = data.read_image(tmp_path / name)
        assert got.dtype == expected.dtype, name
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_eight_bits_are_what_viewers_show(rng, tmp_path):
    color = rng.integers(0, 256, (*SIZE, 4)).astype(np.uint8)
    tiff(tmp_path / "rgb.tif", color[..., :3], photometric="rgb")
    tiff(tmp_path / "rgba.tif", color, photometric="rgb", extrasamples=["unassalpha"])
    tiff(tmp_path / "gray.tif", color[..., 0])
    for name in ("rgb", "rgba"):
        got = data.read_image(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(got, color[..., :3])
    got = data.read_image(tmp_path / "gray.tif")
    np.testing.assert_array_equal(got, color[..., [0, 0, 0]])


def png16(pixels):
    """A 16-bit color PNG, written by hand: Pillow cannot."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = {2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_images_that_pillow_would_reduce_are_rejected(rng, tmp_path, channels):
    (tmp_path / "a.png").write_bytes(png16(deep(rng, channels)))
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).dtype == np.uint8  # Pillow reduces it.
    with pytest.raises(ValueError, match=r"a\.png is a 16-bit PNG with color.*\.npy"):
        data.read_image(tmp_path / "a.png")


def saved_npy(pixels):
    content = io.BytesIO()
    np.save(content, pixels)
    return content.getvalue()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full(SIZE, -1_000, np.int16), "holds int16 numbers from -1000 to -1000"),
        (np.full(SIZE, 70_000), "holds int64 numbers from 70000"),
        (np.full(SIZE, 0.1), "float64 numbers that float32 cannot represent"),
        (np.full(SIZE, np.nan, np.float32), "holds NaN or infinity"),
        (np.full(SIZE, np.inf), "holds NaN or infinity"),
        (np.full(SIZE, 1j), "holds complex128 values"),
        (np.zeros((2, *SIZE, 3), np.uint8), r"shape \[2, 6, 8, 3\]: needed \[H, W\]"),
        (np.zeros((0, 4), np.uint8), "not empty"),
        (np.array([{}]), "is broken: needed a complete image file"),
    ],
)
def test_unsupported_values_are_errors(tmp_path, pixels, message):
    (tmp_path / "a.npy").write_bytes(saved_npy(pixels))
    with pytest.raises(ValueError, match=rf"a\.npy .*{message}") as error:
        data.read_image(tmp_path / "a.npy")
    assert "\n" not in str(error.value)


def test_tiffs_of_several_images_or_cut(rng, tmp_path):
    stack = np.moveaxis(deep(rng, 5), -1, 0)
    tiff(tmp_path / "stack.tif", stack, photometric="minisblack")
    with pytest.raises(ValueError, match=r"stack\.tif has 5 pages .*contig"):
        data.read_image(tmp_path / "stack.tif")
    (tmp_path / "half.tif").write_bytes((tmp_path / "stack.tif").read_bytes()[:90])
    with pytest.raises(ValueError, match=r"half\.tif is broken"):
        data.read_image(tmp_path / "half.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 7), (1, 1, 2)])
def test_packing_is_without_loss(rng, dtype, shape):
    x = rng.integers(0, 65_536, shape).astype(dtype)
    packed = packing.pack(x)
    got = packing.unpack(packed)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.reshape(shape), x)
    assert packing.unpacked_size(packed) == shape[:2]
    holds = {np.uint8: [(), (1,), (3,)], np.uint16: [(), (1,)], np.float32: []}
    assert packed.startswith(b"\x89PNG") == (shape[2:] in holds[dtype])


def folder(tmp_path, images, masks, **options):
    files = {f"images/{name}": content for name, content in images.items()}
    files |= {f"masks/{name}": content for name, content in masks.items()}
    source = sources.write(tmp_path / "mine", files)
    options = {"validation": 0.0, "test": 0.0} | options
    return data.folder(source, data_dir=tmp_path / "prepared", **options)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(5, np.uint16), (1, np.uint16), (2, np.uint8)]
)
def test_a_folder_stores_what_files_hold(rng, tmp_path, channels, dtype):
    pixels = [deep(rng, channels).astype(dtype) for _ in range(4)]
    images = {f"{i}.npy": saved_npy(x) for i, x in enumerate(pixels)}
    mask = rng.integers(0, 3, SIZE).astype(np.uint8)
    made = folder(tmp_path, images, {f"{i}.png": sources.png(mask) for i in range(4)})
    split = made.splits["train"]
    for i, x in enumerate(pixels):
        assert split[i]["image"].dtype == dtype
        np.testing.assert_array_equal(split[i]["image"], x)
        assert split.image_size(i) == SIZE
    (batch,) = data.Pipeline(dataset=made, multiple=2).eval_batches(
        "train", batch_size=4
    )
    np.testing.assert_array_equal(batch["image"], pixels)


def test_mixed_folders_are_refused(rng, tmp_path):
    images = {"0.png": sources.png(deep(rng)), "1.png": sources.png(deep(rng))}
    images |= {"2.png": sources.png(deep(rng).astype(np.uint8))}
    masks = {f"{i}.png": sources.png(np.zeros(SIZE, np.uint8)) for i in range(3)}
    match = r"images/2\.png holds uint8 of 3 channels, .*images/0\.png uint16 of 1"
    with pytest.raises(ValueError, match=match) as error:
        folder(tmp_path, images, masks)
    assert "\n" not in str(error.value)
    assert sources.leftovers(tmp_path / "prepared") == []


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_more_classes_than_a_byte_counts(rng, tmp_path, named, suffix):
    # Ids 0 to 299, including 255, and ignored pixels.
    ids = rng.permutation(300).reshape(15, 20).astype(np.uint16)
    void = ids.copy()
    void[0] = 65_535
    shape = np.zeros((15, 20, 3), np.uint8)
    save = sources.png if suffix == "png" else saved_npy
    masks = {f"0.{suffix}": save(ids), f"1.{suffix}": save(void)}
    files = {"classes.txt": "\n".join(f"c{i}" for i in range(300)).encode()}
    sources.write(tmp_path / "mine", files if named else {})
    made = folder(tmp_path, {f"{i}.png": sources.png(shape) for i in range(2)}, masks)
    assert len(made.classes) == 300
    assert made.splits["train"][0]["label"].dtype == np.uint16
    np.testing.assert_array_equal(made.splits["train"][0]["label"], ids)
    np.testing.assert_array_equal(made.splits["train"][1]["label"], void)


def test_a_label_beyond_the_classes_of_a_builder():
    label = np.array([[0, 255], [4, 1]], np.uint8)
    seen = ExampleFacts.of({"image": np.zeros((2, 2, 3), np.uint8), "label": label})
    checked = ConsistencyCheck()
    checked.add(seen, "a.png")
    checked.check_labels(5)
    with pytest.raises(ValueError, match=r"label of a\.png holds id 4: needed 0 to 3"):
        checked.check_labels(4)


def test_equal_views_are_equal(rng, tmp_path):
    images = {f"{i}.png": sources.png(sources.image(rng, *SIZE)) for i in range(4)}
    masks = {f"{i}.png": sources.png(np.eye(*SIZE, dtype=np.uint8)) for i in range(4)}
    one = folder(tmp_path, images, masks)
    again = {"data_dir": tmp_path / "prepared", "validation": 0.0, "test": 0.0}
    two = data.folder(tmp_path / "mine", **again)
    assert one.splits["train"] is not two.splits["train"]
    assert hash(one.splits["train"]) == hash(two.splits["train"])
    assert data.Pipeline(dataset=one, size=4) == data.Pipeline(dataset=two, size=4)
    assert data.Pipeline(dataset=one, size=4) != data.Pipeline(dataset=two, size=5)
    other = folder(tmp_path, images, masks, validation=0.3)
    assert one != other
