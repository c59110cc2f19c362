"""Checks a built site: every link ends somewhere, and nothing is loaded from elsewhere.

python -m docs.tools.check build/site
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
"""Elements that a browser loads without a click, and the attribute that says what."""
LINK_RELS = {"canonical", "next", "prev", "alternate"}
"""Kinds of <link> that are not loaded."""


class Page(html.parser.HTMLParser):
    """Links, loaded files and anchors of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Reads one element."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[k] for k in ("id", "name") if values.get(k)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in LOADED and not LINK_RELS & set(values.get("rel", "").split()):
            self.loaded += [values[LOADED[tag]]] if values.get(LOADED[tag]) else []


def problems(site: pathlib.Path) -> list[str]:
    """What is wrong with a site, one line each.

    Args:
        site: The folder of a built site.

    Returns:
        Links to pages or anchors that do not exist, and files of other hosts that a
        page loads, in HTML or in style sheets.
    """
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if path.name != "404.html"  # Its links are absolute.
    }
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        found += [f"{where}: loads {url}" for url in page.loaded if _remote(url)]
        for url in {*page.links, *page.loaded}:
            if not urllib.parse.urlsplit(url).scheme and not url.startswith("//"):
                if message := _broken(path, url, pages):
                    found.append(f"{where}: {message}")
    for path in sorted(site.rglob("*.css")):
        for url in re.findall(r"url\([\"']?([^)\"']+)", path.read_text()):
            if _remote(url):
                found.append(f"{path.relative_to(site)}: loads {url}")
    return found


def _remote(url: str) -> bool:
    return url.startswith(("http:", "https:", "//"))


def _broken(path: pathlib.Path, url: str, pages: dict[pathlib.Path, Page]) -> str:
    """Why a link of a page leads nowhere, or nothing if it leads somewhere."""
    target, _, anchor = urllib.parse.unquote(url).partition("#")
    target = target.partition("?")[0]
    end = (path.parent / target).resolve() if target else path
    if end.is_dir():
        end /= "index.html"
    if not end.exists():
        return f"no page {url}"
    if anchor and not anchor.startswith("__") and end in pages:
        if anchor not in pages[end].anchors:
            return f"no anchor {url}"
    return ""


def main() -> None:
    """Prints the problems; exits with 1 if there are any."""
    found = problems(pathlib.Path(sys.argv[1]))
    print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
