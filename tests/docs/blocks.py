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


def defined(page, heading):
    """The functions and classes of a block, as printed; nothing else of it is run."""
    tree = ast.parse(blocks(page)[heading])
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    constants = (
        node
        for node in tree.body
        if isinstance(node, kinds)
        or (isinstance(node, ast.Assign) and node.targets[0].id.isupper())
    )
    namespace = {}
    code = compile(ast.Module(list(constants), []), f"{page}, {heading}", "exec")
    exec(code, namespace)
    return namespace
