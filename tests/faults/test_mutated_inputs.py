"""1,000 mutated inputs of commands, from seeds; a quarter of them unless SEGJAX_FAULTS.

Bytes are flipped, overwritten, cut, added and repeated. Whatever can be read is done,
good files beside damaged ones are done as without them, and what fails is one line.
"""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from segjax import models
from tests.cli.conftest import data_dir as data_dir
from tests.cli.conftest import segjax as segjax
from tests.cli.conftest import write_scenes
from tests.cli.test_predict import write_run
from tests.faults.tally import CASES, otherwise
from tests.faults.test_damaged_files import IMAGES, as_jpeg, damaged

NUMBER = 1000 if CASES >= 1000 else 250
IMAGE_CASES, EXIF_CASES = NUMBER * 6 // 10, NUMBER * 2 // 10
RUN_CASES = MASK_CASES = NUMBER // 10

# Pillow and tifffile warn of what they do not read, and go on.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, models.SimpleCNN(num_classes=3, width=4))


def mutated_images(folder):
    for number in range(IMAGE_CASES):
        rng = np.random.default_rng([20, number])
        name = str(rng.choice(sorted(IMAGES)))
        path = folder / f"{number:04d}-{name}"
        path.write_bytes(damaged(IMAGES[name], rng))


def mutated_exif(folder):
    """Photographs whose EXIF data alone are damaged."""
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    content = as_jpeg(image)
    start = content.index(b"Exif\0\0") + 6
    end = content.index(b"\xff\xdb", start)
    for number in range(EXIF_CASES):
        rng = np.random.default_rng([21, number])
        made = bytearray(content)
        for place in rng.integers(start, end, int(rng.integers(1, 9))).tolist():
            made[place] = int(rng.choice([0, 1, 6, 127, 255, int(rng.integers(256))]))
        (folder / f"{number:04d}-exif.jpg").write_bytes(bytes(made))


def good_images(folder):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"good{i}.png")
    return folder


@pytest.mark.parametrize("mutate", [mutated_images, mutated_exif])
def test_images_of_predict(segjax, model, tmp_path, tally, mutate):
    """All in one folder, with good ones among them."""
    alone, folder = tmp_path / "alone", tmp_path / "in"
    alone.mkdir()
    folder.mkdir()
    good_images(alone)
    good_images(folder)
    mutate(folder)
    flags = ("--max-pixels", 20_000)
    assert segjax("predict", model, alone, "--out", tmp_path / "want", *flags).code == 0
    out = tmp_path / "out"
    got = segjax("predict", model, folder, "--out", out, *flags)
    lines = got.err.strip().splitlines()
    failed = {}
    for line in lines:
        assert line.startswith(("error: ", "note: ")), line
        if line.startswith("error: "):
            (number,) = set(re.findall(rf"{re.escape(str(folder))}/(\d{{4}})-", line))
            failed[number] = line
    assert got.code == (1 if failed else 0)
    done = {p.name[:4] for p in out.glob("[0-9]*_overlay.png")}
    kind = f"command, predict, {mutate.__name__.partition('_')[2]}"
    for path in sorted(folder.glob("[0-9]*")):
        tally.case(kind)
        number = path.name[:4]
        with otherwise("lost"):
            assert number in failed or number in done
        if not path.name.endswith(".tif"):  # Of a stack, some pages may be damaged.
            assert not (number in failed and number in done)
        tally.count("one line" if number in failed else "right")
    with otherwise("half-written"):
        assert not list(out.rglob(".*.tmp"))
        for path in out.glob("*.png"):
            Image.open(path).load()
    for path in (tmp_path / "want").glob("good*"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_run_folders_of_predict(segjax, model, tmp_path, tally):
    image = good_images(tmp_path) / "good0.png"
    files = {p.name: p.read_bytes() for p in model.iterdir()}
    for number in range(RUN_CASES):
        rng = np.random.default_rng([22, number])
        run, out = tmp_path / f"run{number}", tmp_path / f"out{number}"
        shutil.copytree(model, run)
        name = str(rng.choice(sorted(files)))
        (run / name).write_bytes(damaged(files[name], rng))
        tally.case("command, predict, run folder")
        got = segjax("predict", run, image, "--out", out)
        if got.code == 0:
            with Image.open(out / "good0.png") as label:
                assert label.size == (16, 20)
            tally.count("right")
            continue
        assert got.code in (1, 2)
        (line,) = got.err.strip().splitlines()
        assert line.startswith("error: ")
        with otherwise("half-written"):
            assert not list(out.rglob("*.png"))
            assert not list(out.rglob("*.tmp"))
        tally.count("one line")


def test_masks_of_data_prepare(segjax, tmp_path, tally, monkeypatch):
    source = write_scenes(tmp_path / "scenes", count=4)
    root = tmp_path / "prepared"
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(root))
    masks = sorted((source / "masks").glob("*.png"))
    for number in range(MASK_CASES):
        rng = np.random.default_rng([23, number])
        path = masks[int(rng.integers(len(masks)))]
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng))
        tally.case("command, data prepare, mask")
        got = segjax("data", "prepare", "folder", "--source", source)
        path.write_bytes(content)
        if got.code == 0:
            tally.count("right")
        else:
            assert got.code == 2
            lines = [x for x in got.err.splitlines() if not x.startswith("Preparing")]
            (line,) = filter(None, lines)
            assert line.startswith("error: ")
            assert path.name in line
            tally.count("one line")
        with otherwise("half-written"):
            assert not list(root.rglob("*incomplete*"))
        shutil.rmtree(root, ignore_errors=True)
