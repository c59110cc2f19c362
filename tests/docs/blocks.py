"""The Python blocks of a page under docs/, and what they define."""

import ast
import pathlib
import re

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def blocks(page):
    """{heading: source} of a page; a heading has at most one block."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^#+ ", text, flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        sources = re.findall(r"^```python\n(.*?)^```$", body, flags=re.M | re.S)
        assert len(sources) <= 1, f"{heading}: one block under a heading"
        if sources:
            found[heading] = sources[0]
    return found


def definitions(page, heading):
    """The source of a block's functions, classes and capital constants, as printed."""
    source = blocks(page)[heading]
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    kept = (
        node
        for node in ast.parse(source).body
        if isinstance(node, kinds)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper())
    )
    return "\n".join(ast.get_source_segment(source, node) for node in kept)


def defined(page, heading):
    """What `definitions` define, by name; nothing else of the block is run."""
    namespace = {}
    code = compile(definitions(page, heading), f"{page}, {heading}", "exec")
    exec(code, namespace)
    return namespace
