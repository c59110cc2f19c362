"""Notebooks: Python scripts in jupytext's percent format, rendered with their outputs.

    python docs/notebooks/quickstart.py       # as a script
    jupytext --to ipynb docs/notebooks/quickstart.py

On the site, each one is a page with the outputs of its cells, and can be downloaded as
a notebook.
"""

import html
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from docs.tools.stage import ROOT

FOLDER = ROOT / "docs/notebooks"
_TWO_TEXTS = re.compile(r"(^```text\n(?:(?!```).*\n)*)^```\n\s*^```text\n", re.M)


def scripts() -> list[pathlib.Path]:
    """All notebooks, in the order of their names."""
    return sorted(FOLDER.glob("*.py"))


def environment() -> dict[str, str]:
    """The environment of a notebook: this checkout, and no progress bars."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "TERM": "dumb"}


def add_all(folder: pathlib.Path, *, execute: bool) -> None:
    """Writes a page and a notebook file of every script to `folder`.

    Args:
        folder: Where the site's pages are.
        execute: Whether cells are run and their outputs shown.

    Raises:
        subprocess.CalledProcessError: If a cell fails.
    """
    target = folder / "notebooks"
    target.mkdir(parents=True, exist_ok=True)
    for script in scripts():
        with tempfile.TemporaryDirectory() as work:
            add(script, target, pathlib.Path(work), execute=execute)


def add(
    script: pathlib.Path, target: pathlib.Path, work: pathlib.Path, *, execute: bool
) -> None:
    """Writes `target/NAME.md`, `NAME.ipynb` and the pictures of one script.

    Args:
        script: The notebook.
        target: The folder of its page.
        work: An empty folder in which it runs.
        execute: Whether it runs.
    """
    notebook = work / f"{script.stem}.ipynb"
    flags = ["--execute", "--run-path", str(work)] * execute
    _run("jupytext", "--to", "ipynb", "--output", notebook, *flags, script)
    _run("nbconvert", "--to", "markdown", "--output-dir", target, notebook)
    (target / notebook.name).write_bytes(notebook.read_bytes())
    page = target / f"{script.stem}.md"
    page.write_text(cleaned(page.read_text(), script.stem))


def _run(module: str, *args: object) -> None:
    command = [sys.executable, "-m", module, *map(str, args)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        done.check_returncode()


def cleaned(text: str, name: str) -> str:
    """The page with a link to its notebook, and printed lines as one block of text."""
    title, _, rest = text.strip().partition("\n")
    rest = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", rest)
    # What rich prints comes as HTML.
    rest = re.sub(r"^<pre [^>]*>(.*?)</pre>$", _plain, rest, flags=re.M | re.S)
    parts = re.split(r"(^```.*?^```$)", rest + "\n", flags=re.M | re.S)
    shown = (part if part.startswith("```") else _texts(part) for part in parts)
    joined = "".join(shown)
    while _TWO_TEXTS.search(joined):
        joined = _TWO_TEXTS.sub(r"\1", joined)
    return f"{title}\n\n[Download the notebook]({name}.ipynb)\n{joined}"


def _plain(match: re.Match) -> str:
    """A block of text with the content of a <pre>."""
    content = html.unescape(re.sub(r"<[^>]+>", "", match[1])).strip("\n")
    return f"```text\n{content}\n```"


def _texts(text: str) -> str:
    """Indented lines, as nbconvert writes outputs, become fenced blocks."""
    block = r"(?:^    (?=.*\S).*\n(?:[ \t]*\n(?=    .*\S))*)+"

    def fenced(match: re.Match) -> str:
        lines = re.sub(r"^    ", "", match[0], flags=re.M).strip("\n")
        return f"```text\n{lines}\n```\n"

    return re.sub(block, fenced, text, flags=re.M)
