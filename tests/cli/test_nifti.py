"""NIfTI volumes as slices; the oracle is nibabel and loops over voxels."""

import gzip
import json

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax import data
from segjax.data import formats
from segjax.data.builders.sources import Folder
from tests.cli.conftest import expect_one_error_line

SHAPE = (5, 6, 7)
TURNS = {
    "RAS": np.diag([1, 1, 1, 1]),
    "LPS": np.diag([-1, -2, 3, 1]),
    "SRA": np.array([[0, 1, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]]),
    "PIL": np.array([[0, 0, -1, 4], [-1, 0, 0, 2], [0, -1, 0, 0], [0, 0, 0, 1]]),
}


def save(path, volume, affine=None):
    affine = np.eye(4) if affine is None else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


def volumes(folder, rng, *, count=4, affine=None, images="imagesTr", labels="labelsTr"):
    """Writes volumes as the Medical Decathlon does; returns them by name."""
    made = {}
    for number in range(count):
        image = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        label = rng.integers(0, 3, SHAPE).astype(np.uint8)
        save(folder / images / f"case_{number}.nii.gz", image, affine)
        save(folder / labels / f"case_{number}.nii.gz", label, affine)
        made[f"case_{number}"] = image, label
    names = {"labels": {"0": "background", "1": "liver", "2": "tumor"}}
    (folder / "dataset.json").write_text(json.dumps(names))
    return made


def convert(source, out, **options):
    formats.write(formats.nifti(Folder(source), **options), out, objects=False)
    return out


def read(path):
    return (
        tifffile.imread(path) if path.suffix == ".tif" else np.array(Image.open(path))
    )


def by_loops(volume, affine, axis, number):
    """A slice, voxel by voxel, from the world's coordinates."""
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
    turned = np.asarray(turned.dataobj)
    across = [a for a in range(3) if a != axis]
    width, height = (turned.shape[a] for a in across)
    made = np.zeros((height, width), volume.dtype)
    for row in range(height):
        for column in range(width):
            place = [0, 0, 0]
            place[axis], place[across[0]] = number, column
            place[across[1]] = height - 1 - row
            made[row, column] = turned[tuple(place)]
    return made


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turn", TURNS)
def test_slices_equal_loops_over_voxels(tmp_path, rng, turn, axis):
    made = volumes(tmp_path / "a", rng, count=1, affine=TURNS[turn])
    window = (-500.0, 500.0)
    out = convert(tmp_path / "a", tmp_path / "b", axis=axis, window=window)
    (image, label) = made["case_0"]
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, TURNS[turn]))
    paths = sorted((out / "images/case_0").iterdir())
    assert len(paths) == turned.shape[axis]
    for number, path in enumerate(paths):
        want = by_loops(image, TURNS[turn], axis, number)
        want = np.clip((want.astype(np.float64) + 500) / 1000, 0, 1) * 65535
        np.testing.assert_allclose(read(path), want, atol=0.51)
        mask = read(out / f"masks/case_0/{number:04d}.png")
        np.testing.assert_array_equal(mask, by_loops(label, TURNS[turn], axis, number))
    assert (out / "classes.txt").read_text() == "background\nliver\ntumor\n"


def test_all_slices_of_a_volume_are_in_one_split(tmp_path, rng):
    volumes(tmp_path / "a", rng, count=12)
    out = convert(tmp_path / "a", tmp_path / "b")
    found = {
        split: {p.name for p in (out / split / "images").iterdir()}
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, found.values())) == 12
    assert {len(found["validation"]), len(found["test"])} == {1}
    made = data.folder(out, data_dir=tmp_path / "prepared")
    assert made.classes == ("background", "liver", "tumor")
    assert [len(s) for s in made.splits.values()] == [10 * 7, 7, 7]
    assert made.splits["train"][0]["image"].dtype == np.uint16


def test_channels_of_nnunet_and_of_a_fourth_axis(tmp_path, rng):
    one, two = rng.integers(0, 100, (2, *SHAPE)).astype(np.float32)
    label = rng.integers(0, 2, SHAPE).astype(np.uint8)
    for folder in ("nnunet", "fourth"):
        save(tmp_path / folder / "labelsTr/a.nii", label)
        names = {"labels": {"background": 0, "cell": 1}}
        (tmp_path / folder / "dataset.json").write_text(json.dumps(names))
    save(tmp_path / "nnunet/imagesTr/a_0000.nii", one)
    save(tmp_path / "nnunet/imagesTr/a_0001.nii", two)
    save(tmp_path / "fourth/imagesTr/a.nii", np.stack([one, two], -1))
    first, second = (
        convert(tmp_path / f, tmp_path / f"{f}-out", window=(0.0, 99.0))
        for f in ("nnunet", "fourth")
    )
    for path in sorted((first / "images/a").iterdir()):
        got = read(path)
        assert got.shape == (6, 5, 2)
        np.testing.assert_array_equal(got, read(second / "images/a" / path.name))
    made = data.folder(first, validation=0.0, test=0.0, data_dir=tmp_path / "prepared")
    assert made.splits["train"][0]["image"].shape == (6, 5, 2)


def test_without_a_window_percentiles_are_black_and_white(tmp_path, rng):
    made = volumes(tmp_path / "a", rng, count=1)
    out = convert(tmp_path / "a", tmp_path / "b")
    slices = np.stack([read(p) for p in sorted((out / "images/case_0").iterdir())])
    image = made["case_0"][0]
    low, high = np.percentile(image, (0.5, 99.5))
    assert (slices == 0).sum() == (image <= low).sum()
    assert (slices == 65535).sum() == (image >= high).sum()


def test_labels_without_names_are_numbered(tmp_path, rng):
    volumes(tmp_path / "a", rng, count=2, images="images", labels="masks")
    (tmp_path / "a/dataset.json").unlink()
    found = formats.nifti(Folder(tmp_path / "a"))
    assert found.classes == ("background", "label 1", "label 2")
    assert any("too few volumes" in note for note in found.notes)


def spoil_size(folder):
    save(folder / "imagesTr/case_0.nii.gz", np.zeros((5, 6, 8), np.int16))


def spoil_partner(folder):
    (folder / "labelsTr/case_1.nii.gz").unlink()


def spoil_label(folder):
    save(folder / "labelsTr/case_0.nii.gz", np.full(SHAPE, 9, np.uint8))


def spoil_fraction(folder):
    save(folder / "labelsTr/case_0.nii.gz", np.full(SHAPE, 0.5, np.float32))


def spoil_gzip(folder):
    path = folder / "imagesTr/case_0.nii.gz"
    path.write_bytes(path.read_bytes()[:200])


def spoil_header(folder):
    path = folder / "labelsTr/case_0.nii.gz"
    path.write_bytes(gzip.compress(b"no header" * 99))


def spoil_size_field(folder):
    """A few bytes that claim 30,000 voxels along each axis."""
    path = folder / "imagesTr/case_0.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def spoil_nan(folder):
    save(folder / "imagesTr/case_0.nii.gz", np.full(SHAPE, np.nan, np.float32))


def spoil_json(folder):
    (folder / "dataset.json").write_text('{"labels": {"whole": [1, 2]}}')


def spoil_folders(folder):
    (folder / "labelsTr").rename(folder / "truth")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_size, "needed equal sizes"),
        (spoil_partner, "has no partner"),
        (spoil_label, "has the label 9, which dataset.json does not name"),
        (spoil_fraction, "needs whole numbers as labels"),
        (spoil_gzip, "truncated"),
        (spoil_header, "is no NIfTI-1 file"),
        (spoil_size_field, "declares 54000.0 GB"),
        (spoil_nan, "needs finite real numbers"),
        (spoil_json, "one number each"),
        (spoil_folders, "needs imagesTr/ and labelsTr/"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_left(
    segjax, tmp_path, rng, spoil, words
):
    volumes(tmp_path / "a", rng, count=2)
    spoil(tmp_path / "a")
    out = tmp_path / "out"
    got = segjax("data", "import", "nifti", tmp_path / "a", "--out", out)
    expect_one_error_line(got, words)
    assert not out.exists()


def test_the_command(segjax, tmp_path, rng):
    volumes(tmp_path / "a", rng, count=3)
    flags = ["--out", tmp_path / "b", "--axis", 1, "--window", -160, 240]
    got = segjax("data", "import", "nifti", tmp_path / "a", *flags)
    assert got.code == 0, got.err
    assert "note: 3 volumes in coronal slices" in got.err
    assert all(x in got.out for x in ("18 (", "6 train", "6 validation", "6 test"))
    flags = ["--out", tmp_path / "c", "--axis", 1]
    got = segjax("data", "import", "voc", tmp_path / "a", *flags)
    expect_one_error_line(got, "are for nifti, not voc")
