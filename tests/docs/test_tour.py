"""The tour names tests that exist; the test of the site runs its code."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs/tour.md").read_text()


def test_sections_name_tests_that_exist():
    sections = re.split(r"^## ", TEXT, flags=re.M)[1:]
    assert len(sections) == 16
    for section in sections[:-1]:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section)
        assert named, section.partition("\n")[0]
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
