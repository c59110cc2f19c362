"""The tour: its code runs and makes its pictures; the tests that it names exist."""

import pathlib
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image

from docs.tools import tour
from docs.tools.pages import python_blocks

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs/tour.md").read_text()


@pytest.mark.slow
def test_every_section_makes_its_picture(tmp_path):
    made = tour.add_pictures(TEXT, tmp_path)
    assert made.count("](tour/") == len(python_blocks(TEXT)) == 14
    for path in sorted((tmp_path / "tour").glob("*.png")):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10, path


def test_sections_name_tests_that_exist():
    sections = re.split(r"^## ", TEXT, flags=re.M)[1:]
    assert len(sections) == 16
    for section in sections[:-1]:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section)
        assert named, section.partition("\n")[0]
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
