"""Damaged annotations of other tools, from seeds: a whole folder, or one line."""

import numpy as np
import pytest

from segjax.data import formats
from segjax.data.builders import colors
from segjax.data.builders.sources import Folder
from tests.data import sources, test_formats
from tests.data.test_formats import CONCAVE, TRIANGLE, H, W
from tests.faults.test_damaged_files import cases, damaged, one_line

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 21, (H, W))


def photos(*names):
    return {name: sources.png(sources.image(RNG, H, W)) for name in names}


def yolo_line(number, points):
    return " ".join([str(number), *(f"{x / W} {y / H}" for x, y in points)])


LABELME = photos("a.png") | {
    "labels.txt": b"__ignore__\ncrop\nweed\n",
    "a.json": test_formats.labelme_file(
        "a.png",
        [
            test_formats.labelme_shape("weed", TRIANGLE),
            test_formats.labelme_shape("crop", [[10, 10], [10, 14]], "circle"),
            test_formats.labelme_shape("crop", [[2, 2], [6, 9]], "rectangle"),
        ],
    ),
}
CVAT = photos("images/a.png", "images/deep/b.png") | test_formats.cvat_file()
YOLO = photos("images/train/a.png") | {
    "data.yaml": b"names:\n  0: crop\n  1: weed\n",
    "labels/train/a.txt": f"{yolo_line(1, CONCAVE)}\n{yolo_line(0, TRIANGLE)}".encode(),
}
VOC = photos("JPEGImages/a.png") | {
    "SegmentationClass/a.png": test_formats.voc_palette_png(IDS),
    "SegmentationObject/a.png": test_formats.voc_palette_png(IDS % 4),
    "ImageSets/Segmentation/train.txt": b"a\n",
}
DAMAGED = [
    (formats.labelme, LABELME, "a.json"),
    (formats.labelme, LABELME, "labels.txt"),
    (formats.cvat, CVAT, "annotations.xml"),
    (formats.yolo, YOLO, "data.yaml"),
    (formats.yolo, YOLO, "labels/train/a.txt"),
    (formats.pascal_voc, VOC, "SegmentationClass/a.png"),
    (formats.pascal_voc, VOC, "ImageSets/Segmentation/train.txt"),
]


@pytest.mark.parametrize(
    ("read", "files", "name"), DAMAGED, ids=[name for _, _, name in DAMAGED]
)
def test_annotations_of_other_tools(tmp_path, tally, read, files, name):
    source, out = tmp_path / "theirs", tmp_path / "ours"
    sources.write(source, files)
    formats.write(read(Folder(source)), tmp_path / "whole", objects=True)
    for number, rng in enumerate(cases(name)):
        (source / name).write_bytes(damaged(files[name], rng))
        tally.case("file, formats")

        def work(number=number):
            made = read(Folder(source))
            formats.write(made, out / str(number), objects=bool(number % 2))
            return True

        right = one_line(work, str(source))
        tally.count("right" if right else "one line")
        # No hidden folder is left, and only whole ones are visible.
        written = [path.name for path in out.iterdir()] if out.exists() else []
        assert (str(number) in written) == bool(right)
        assert not any(path.startswith(".") for path in written)


def test_tables_of_colors(tally):
    whole = b'r,g,b,name\n0,0,0,soil\n#00ff00,crop\n255,0,0,"weed, big"\n'
    assert colors.read_table(whole, "x.csv").names == ("soil", "crop", "weed, big")
    for rng in cases("csv"):
        text = damaged(whole, rng)
        tally.case("file, csv")
        table = one_line(lambda text=text: colors.read_table(text, "x.csv"), "x.csv")
        tally.count("one line" if table is None else "right")
