"""Builds the site.

`make docs` runs

    python -m docs.tools.build [--without-outputs] [--out build]

Writes the pages to OUT/docs and the site to OUT/site, and fails if a link leads
nowhere, a public name has no docstring, or a page loads something from another host.
`--without-outputs` shows the notebooks without running them.
"""

import argparse
import inspect
import os
import pathlib
import shutil
import subprocess
import sys

from docs.tools import check, gallery, notebooks, reference, tour
from docs.tools.stage import ROOT, Stage, formulas, page_names


def add_pages(folder: pathlib.Path) -> None:
    """Writes the pages that people write, with the pictures that they name."""
    pages = Stage(folder, page_names())
    drawn = {"docs/gallery.md": gallery, "docs/tour.md": tour}
    for source, name in pages.pages.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source in drawn:
            text = drawn[source].add_pictures(text, folder)
        pages.add(source, name, text)
    shutil.copy(ROOT / "docs/tools/site.css", folder / "site.css")


def add_reference(folder: pathlib.Path) -> None:
    """Writes a page for every package.

    Raises:
        ValueError: If a public function or class has no docstring.
    """
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    known = reference.gallery_formulas(text)
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    for package in reference.packages():
        if silent := list(reference.without_docstring(package)):
            raise ValueError(f"Without a docstring: {', '.join(silent)}.")
        page = formulas(reference.page(package, known))
        (folder / "reference" / reference.page_name(package)).write_text(page)


def render(out: pathlib.Path) -> None:
    """Runs Zensical, strictly, on OUT/docs."""
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    for old, new in (
        ('"build/', '"'),
        ('paths = ["."]', f'paths = ["{ROOT}"]'),
        ('"Reference" = []', f'"Reference" = [{", ".join(reference.navigation())}]'),
    ):
        assert old in config
        config = config.replace(old, new)
    (out / "zensical.toml").write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=out, env=os.environ | {"NO_COLOR": "1"})
    if done.returncode:
        sys.exit("error: the site was not built; the messages above say why.")


def main() -> None:
    """Builds and checks the site."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("--without-outputs", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build")
    args = parser.parse_args()
    pages = args.out / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    add_pages(pages)
    add_reference(pages)
    notebooks.add_all(pages, execute=not args.without_outputs)
    render(args.out)
    if found := check.problems(args.out / "site"):
        sys.exit("\n".join(["error: the site has faults:", *found]))
    print(f"Site: {args.out / 'site/index.html'}")


if __name__ == "__main__":
    main()
