"""The site: complete, without broken links, and loading nothing from other hosts."""

import html
import importlib
import importlib.util
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib
import zlib

import numpy as np
import pytest
from PIL import Image

import segjax
from docs.tools.pages import python_blocks

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def _installed():
    """The packages of docs/requirements.txt: CI fails without them, never skips."""
    missing = importlib.util.find_spec("zensical") is None
    if missing and not os.environ.get("CI"):
        pytest.skip("needs docs/requirements.txt, which `make docs` installs")


def navigation(entries):
    """Every page of the navigation."""
    for entry in entries:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else navigation(target)


def public():
    """(package, name) of everything that is in an `__all__`."""
    found = pkgutil.walk_packages(segjax.__path__, "segjax.")
    for package in ["segjax", *(module.name for module in found if module.ispkg)]:
        for name in getattr(importlib.import_module(package), "__all__", ()):
            yield package, name


def test_every_public_name_has_a_place_in_the_reference(tmp_path):
    from docs.tools import build

    build.add_reference(tmp_path)
    pages = {path.stem: path.read_text() for path in (tmp_path / "reference").iterdir()}
    assert len(list(public())) > 400
    for package, name in public():
        if f"{package}.{name}" in pages:
            continue
        full = re.escape(f"{package}.{name}")
        assert re.search(rf"^::: {full}(\.{name})?$", pages[package], re.M), full


def test_the_navigation_has_every_page():
    from docs.tools import notebooks, stage

    pages = set(stage.page_names().values())
    pages |= {f"notebooks/{path.stem}.md" for path in notebooks.scripts()}
    assert sorted(navigation(CONFIG["nav"])) == sorted(pages)


def test_the_navigation_of_the_reference_has_every_package(tmp_path):
    from docs.tools import build, reference

    build.add_reference(tmp_path)
    (entries,) = tomllib.loads(f"x = [[{','.join(reference.navigation())}]]")["x"]
    written = {f"reference/{path.name}" for path in (tmp_path / "reference").iterdir()}
    assert sorted(navigation(entries)) == sorted(written)


def test_a_link_to_nothing_is_an_error(tmp_path):
    from docs.tools.stage import LinkError, Stage

    pages = Stage(tmp_path, {"docs/data.md": "data.md"})
    pages.add("docs/x.md", "deep/x.md", "[a](data.md#fields) [b](../pyproject.toml)\n")
    assert (tmp_path / "deep/x.md").read_text() == (
        "[a](../data.md#fields) [b](../source/pyproject.toml.md)\n"
    )
    assert "segjax" in (tmp_path / "source/pyproject.toml.md").read_text()
    with pytest.raises(LinkError, match=r"docs/x.md links to docs/nothing.png"):
        pages.add("docs/x.md", "x.md", "![c](nothing.png)")


@pytest.mark.parametrize("name", ["batch", "architecture"])
def test_a_graph_is_drawn_from_its_source(name):
    source = (ROOT / f"docs/{name}.dot").read_text()
    drawn = (ROOT / f"docs/{name}.svg").read_text()
    nodes = re.findall(r"^ +(\w+) \[label=", source, re.M)
    assert len(nodes) > 8
    assert set(nodes) == set(re.findall(r"<title>(\w+)</title>", drawn)) - {
        *("segjax", "batch", "cluster_host", "cluster_device")
    }
    texts = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawn))
    for label in re.findall(r'\w+ \[label="([^"]+)"', source):
        assert label in html.unescape(texts), label


def test_formulas_become_mathml():
    from docs.tools.stage import formulas

    made = formulas("a $`x_1`$ b\n\n```math\n\\frac{1}{2}\n```\n")
    assert re.search(r"<msub><mi>x</mi><mn>1</mn></msub>", made)
    assert re.search(r"<mfrac>.*<mn>1</mn>.*<mn>2</mn>.*</mfrac>", made)
    assert "$" not in made
    assert "```" not in made


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ('<a href="other.html">x</a><h1 id="top">t</h1><a href="#top">y</a>', ""),
        ('<a href="missing.html">x</a>', "index.html: no page missing.html"),
        ('<a href="other.html#no">x</a>', "index.html: no anchor other.html#no"),
        ('<img src="https://x.org/a.png">', "index.html: loads https://x.org/a.png"),
        ('<script src="//x.org/a.js"></script>', "index.html: loads //x.org/a.js"),
        ('<a href="https://x.org">a link is not loaded</a>', ""),
        ('<link rel="canonical" href="https://x.org">', ""),
        (
            '<link rel="stylesheet" href="https://x.org/a.css">',
            "index.html: loads https://x.org/a.css",
        ),
    ],
)
def test_problems_of_a_site(tmp_path, page, problem):
    from docs.tools import check

    (tmp_path / "index.html").write_text(page)
    (tmp_path / "other.html").write_text('<p id="yes">')
    assert check.problems(tmp_path) == [problem] * bool(problem)


def test_style_sheets_load_nothing_from_elsewhere(tmp_path):
    from docs.tools import check

    (tmp_path / "a.css").write_text("@font-face { src: url('https://x.org/f.woff') }")
    assert check.problems(tmp_path) == ["a.css: loads https://x.org/f.woff"]


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
    """Strictly: with all links and docstrings; without running the notebooks."""
    command = [sys.executable, "-m", "docs.tools.build", "--without-outputs"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, _, _, packed = (tmp_path / "site/objects.inv").read_bytes().split(b"\n", 4)
    known = {
        line.split(" ")[0] for line in zlib.decompress(packed).decode().split("\n")
    }
    for package, name in public():
        full = f"{package}.{name}"
        page = tmp_path / f"site/reference/{full}.html"
        assert {full, f"{full}.{name}"} & known or page.exists(), full
    check_pictures(tmp_path / "site")


def check_pictures(site):
    """The gallery has formulas and pictures; the code of the tour made its own."""
    gallery = (site / "gallery.html").read_text()
    pictures = re.findall(r'src="(gallery/\w+\.svg)"', gallery)
    assert len(pictures) > 45
    size = sum((site / picture).stat().st_size for picture in pictures)
    assert size + len(gallery) < 3_000_000
    assert gallery.count("<math") > 60
    tour = re.findall(r'src="(tour/\w+\.\w+)"', (site / "tour.html").read_text())
    assert len(tour) == len(python_blocks((ROOT / "docs/tour.md").read_text())) == 14
    for picture in tour:
        if picture.endswith(".png"):
            with Image.open(site / picture) as image:
                assert np.asarray(image.convert("L")).std() > 10, picture
