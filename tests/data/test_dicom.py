"""DICOM files: values by hand, and what cannot be read."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from segjax import data, inference
from segjax.files import dicom


def written(pixels, *, syntax=ExplicitVRLittleEndian, bits=None, **tags):
    """The content of a file with one image."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    color = pixels.ndim == 3
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 3 if color else 1
    file.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        file.PlanarConfiguration = 0
    file.BitsAllocated = 8 * pixels.itemsize
    file.BitsStored = bits or file.BitsAllocated
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_hounsfield_units(rng):
    stored = rng.integers(-50, 3000, (6, 8)).astype(np.int16)
    content = written(stored, RescaleSlope="2", RescaleIntercept="-1024.5")
    got = dicom.read(content, "a.dcm")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, stored * 2.0 - 1024.5)
    np.testing.assert_array_equal(dicom.read(written(stored), "a.dcm"), stored)


def test_a_table_of_units(rng):
    stored = rng.integers(3, 9, (6, 8)).astype(np.uint8)
    table = pydicom.Dataset()
    table.LUTDescriptor = [6, 3, 16]
    units = np.array([700, 10, 20, 500, 41, 50], np.uint16)
    table.LUTData = units.tobytes()
    got = dicom.read(written(stored, ModalityLUTSequence=[table]), "a.dcm")
    np.testing.assert_array_equal(got, units[stored - 3])


def test_inverted_gray(rng):
    stored = rng.integers(0, 4096, (6, 8)).astype(np.uint16)
    kind = {"PhotometricInterpretation": "MONOCHROME1"}
    got = dicom.read(written(stored, bits=12, **kind), "a.dcm")
    np.testing.assert_array_equal(got, 4095 - stored.astype(float))
    signed = (stored.astype(np.int16) - 2048).astype(np.int16)
    got = dicom.read(written(signed, bits=12, **kind), "a.dcm")
    # From the least, -2048, to the largest, 2047.
    np.testing.assert_array_equal(got, -1 - signed.astype(float))


def test_colors(rng):
    stored = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(dicom.read(written(stored), "a.dcm"), stored)
    gray = np.full((6, 8, 3), (77, 128, 128), np.uint8)
    content = written(gray, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(dicom.read(content, "a.dcm"), np.full((6, 8, 3), 77))


def test_what_cannot_be_read(rng, without):
    stored = rng.integers(0, 99, (6, 8)).astype(np.uint16)

    def refused(content, words):
        with pytest.raises(ValueError, match=words) as error:
            dicom.read(content, "x/a.dcm", max_pixels=10**6)
        assert "x/a.dcm" in str(error.value)
        assert "\n" not in str(error.value)

    refused(b"no picture", "is broken")
    refused(written(stored)[:200], "is broken")
    refused(written(stored)[:-9], "cannot be decoded")
    refused(written(stored, NumberOfFrames="3"), "3 frames")
    refused(written(stored, Rows=40_000, Columns=40_000), "40000")
    refused(written(stored, syntax=DeflatedExplicitVRLittleEndian), "deflated")
    deep = stored.repeat(3).reshape(6, 8, 3)
    refused(written(deep), "colors of uint16")
    parts = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
    packed = written(stored, PixelData=parts, syntax=JPEG2000Lossless)
    refused(packed, "cannot be decoded")
    content = written(stored)
    without("pydicom")
    with pytest.raises(ValueError, match=r'pip install "segjax\[medical\]"'):
        dicom.read(content, "a.dcm")


def test_in_a_folder_and_for_prediction(rng, tmp_path):
    from tests.data import sources

    files = {}
    stored = rng.integers(-900, 900, (4, 12, 16)).astype(np.int16)
    for n, pixels in enumerate(stored):
        files[f"images/{n}.dcm"] = written(pixels, RescaleIntercept="-10")
        files[f"masks/{n}.png"] = sources.png((pixels > 0).astype(np.uint8))
    source = sources.write(tmp_path / "source", files)
    found = data.folder(source, validation=0.25, data_dir=tmp_path / "prepared")
    for examples in found.splits.values():
        for example in examples:
            number = int(example["name"])
            assert example["image"].dtype == np.float32
            want = stored[number][..., None] - 10.0
            np.testing.assert_array_equal(example["image"], want)
            np.testing.assert_array_equal(example["label"], stored[number] > 0)
    path = source / "images" / "2.dcm"
    np.testing.assert_array_equal(
        inference.read_image(path, channels=1), stored[2][..., None] - 10.0
    )
    np.testing.assert_array_equal(data.read_image(path), stored[2][..., None] - 10.0)
