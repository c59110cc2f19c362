"""Copies the pages of the site to one folder, with links and formulas resolved.

The pages are plain Markdown that a code host shows as it is. On the site, a link to a
page of the repository becomes a link to its page, a link to a picture takes the picture
along, a link to a source file becomes a page with that source, and formulas become
MathML, so that nothing is loaded from elsewhere.
"""

import dataclasses
import os
import pathlib
import re
import shutil

from latex2mathml.converter import convert

ROOT = pathlib.Path(__file__).parents[2]
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "experiments/README.md": "results.md",
    "experiments/losses_ablation.md": "losses_ablation.md",
}
"""Pages that are not in docs/, and their names on the site."""
PICTURES = (".png", ".svg", ".jpg")
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


class LinkError(ValueError):
    """A page links to something that does not exist."""


def page_names(root: pathlib.Path = ROOT) -> dict[str, str]:
    """{path in the repository: path on the site} of the pages that people write."""
    pages = {f"docs/{path.name}": path.name for path in (root / "docs").glob("*.md")}
    return pages | ELSEWHERE


@dataclasses.dataclass
class Stage:
    """A folder of pages ready to be rendered.

    Attributes:
        folder: Where pages are written.
        pages: {path in the repository: path on the site}.
        root: The repository.
    """

    folder: pathlib.Path
    pages: dict[str, str]
    root: pathlib.Path = ROOT

    def add(self, source: str, name: str, text: str) -> None:
        """Writes one page.

        Args:
            source: Path in the repository that the page's links are relative to.
            name: Path on the site.
            text: The page's Markdown.

        Raises:
            LinkError: If a link's target is not in the repository.
        """
        text = formulas(self._resolve(source, name, text))
        self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Writes a file as it is."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _resolve(self, source: str, name: str, text: str) -> str:
        """The text with its links pointing to pages of the site; not in code blocks."""

        def link(match: re.Match) -> str:
            before, target, after = match.groups()
            path, hash_, anchor = target.partition("#")
            if not path or re.match(r"[a-z]+:", path):
                return match[0]
            folder = pathlib.PurePosixPath(source).parent
            inside = os.path.normpath(folder / path)
            made = self.folder / pathlib.PurePosixPath(name).parent / path
            # Made for the site; Zensical checks links to pages that are not made yet.
            if not (self.root / inside).exists() and (
                path.endswith(".md") or made.exists()
            ):
                return match[0]
            new = os.path.relpath(self._target(inside, source), os.path.dirname(name))
            return f"{before}{new}{hash_}{anchor}{after}"

        parts = re.split(f"({_FENCE.pattern})", text, flags=re.M | re.S)
        return "".join(
            part if part.startswith("```") else _LINK.sub(link, part) for part in parts
        )

    def _target(self, inside: str, source: str) -> str:
        """Path on the site of a file of the repository."""
        path = self.root / inside
        if inside in self.pages:
            return self.pages[inside]
        if not path.is_file():
            raise LinkError(f"{source} links to {inside}, which is not a file.")
        if path.suffix in PICTURES:
            (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.folder / "pictures" / path.name)
            return f"pictures/{path.name}"
        language = {".py": "python", ".json": "json"}.get(path.suffix, "text")
        name = f"source/{inside}.md"
        code = path.read_text(encoding="utf-8")
        self.write(name, f"# {inside}\n\n~~~~{language}\n{code}\n~~~~\n")
        return name


def formulas(text: str) -> str:
    """Replaces formulas by MathML: blocks ```math, and inline $`...`$."""

    def block(match: re.Match) -> str:
        return f'<div class="formula">{mathml(match[1], display="block")}</div>'

    text = re.sub(r"^```math\n(.*?)^```$", block, text, flags=re.M | re.S)
    # Markdown takes <math> at the start of a line as a block, and <span> as text.
    return re.sub(
        r"\$`([^`]+)`\$", lambda match: f"<span>{mathml(match[1])}</span>", text
    )


def mathml(latex: str, *, display: str = "inline") -> str:
    """MathML of one formula, on one line."""
    return " ".join(convert(latex.strip(), display=display).split())
