"""Every Python block of the documentation runs, or says why not."""

import contextlib
import io
import pathlib
import re

import pytest

from docs.tools.pages import python_blocks

ROOT = pathlib.Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
ELSEWHERE = {
    "docs/data.md": "tests/data/test_arrays.py",
    "docs/extending.md": "tests/docs/test_extending.py",
    "docs/finetuning.md": "tests/docs/test_finetuning.py",
    "docs/gallery.md": "tests/docs/test_gallery.py",
    "docs/tour.md": "tests/docs/test_site.py",
}
"""Pages whose blocks another test runs."""


def expected(source):
    """What the comments after `print(...)` say that it prints."""
    return re.findall(r"^print\(.*\)  # (.*)$", source, flags=re.M)


@pytest.mark.parametrize("page", sorted(set(PAGES) - ELSEWHERE.keys()))
def test_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    for block in python_blocks((ROOT / page).read_text()):
        if block.not_run is not None:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.source, page, "exec"), namespace)
        if lines := expected(block.source):
            assert printed.getvalue().splitlines() == lines


def test_other_pages_are_run_by_the_test_that_is_named():
    for page, test in ELSEWHERE.items():
        assert pathlib.Path(page).stem in (ROOT / test).read_text()
        assert python_blocks((ROOT / page).read_text())


def test_a_block_that_is_not_run_says_why():
    text = "<!-- not run: needs a GPU -->\n```python\nx\n```\n\n```python\ny\n```\n"
    first, second = python_blocks(text)
    assert (first.source, first.not_run) == ("x\n", "needs a GPU")
    assert (second.source, second.not_run) == ("y\n", None)
