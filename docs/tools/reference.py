"""Pages of the reference: every public name, from its docstring."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping

import segjax

PRIVATE = ("segjax.files", "segjax.data.builders")
"""Packages without public names."""


def packages() -> Iterator[str]:
    """Packages with public names, and modules that are public names of a package."""
    walked = pkgutil.walk_packages(segjax.__path__, "segjax.")
    names = ["segjax", *(m.name for m in walked if m.ispkg and m.name not in PRIVATE)]
    public = {f"{name}.{child}" for name in names for child in public_names(name)}
    modules = {name for name in public if inspect.ismodule(_value(name))}
    return iter(sorted({*names, *modules}))


def navigation() -> Iterator[str]:
    """Entries of the site's navigation, as TOML."""
    for package in packages():
        title = package.removeprefix("segjax.")
        yield f'{{"{title}" = "reference/{page_name(package)}"}}'


def public_names(package: str) -> list[str]:
    """Names of `__all__`; of a module without it, those that it defines."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    tree = ast.parse(inspect.getsource(module))
    kinds = (ast.FunctionDef, ast.ClassDef)
    own = [node.name for node in tree.body if isinstance(node, kinds)]
    for node in tree.body:
        if isinstance(node, ast.Assign):
            own += [ast.unparse(target) for target in node.targets]
    return [name for name in own if not name.startswith("_")]


def page(package: str, formulas: Mapping[str, str]) -> str:
    """Markdown of a package's page, which mkdocstrings renders.

    Args:
        package: A package's full name.
        formulas: {full name: Markdown to show before its docstring}.
    """
    lines = [
        f"# {package}",
        f"::: {package}\n    options:\n      members: []\n"
        "      show_root_heading: false\n      show_root_toc_entry: false",
    ]
    children = []
    for name in public_names(package):
        full = f"{package}.{name}"
        if inspect.ismodule(_value(full)):
            children.append(f"- [`{full}`]({page_name(full)})")
            continue
        lines.append(f"::: {identifier(full)}")
        if full in formulas:
            lines.append(formulas[full])
    if children:
        lines.insert(2, "## Packages\n\n" + "\n".join(children))
    return "\n\n".join(lines) + "\n"


def without_docstring(package: str) -> Iterator[str]:
    """Functions and classes of segjax that are public names without a docstring."""
    for name in public_names(package):
        value = _value(f"{package}.{name}")
        ours = getattr(value, "__module__", "").startswith("segjax")
        if ours and callable(value) and not inspect.getdoc(value):
            yield f"{package}.{name}"


def identifier(full: str) -> str:
    """The path by which a public name is found in the sources.

    A function in a module of the same name, such as `losses.instance`, is found only by
    its module's path; others by the path of `__all__`.
    """
    try:
        shadowed = importlib.util.find_spec(full) is not None
    except ModuleNotFoundError:  # Its parent is a module, not a package.
        shadowed = False
    return f"{full}.{full.rpartition('.')[2]}" if shadowed else full


def page_name(package: str) -> str:
    """The file of a package's page."""
    return f"{package}.md"


def gallery_formulas(gallery: str) -> dict[str, str]:
    """{full name: its formulas, and a link} from the page of losses and metrics.

    Args:
        gallery: Markdown whose headings of third level are names of public functions,
            under "## Losses" or "## Metrics".
    """
    found = {}
    for package in ("losses", "metrics"):
        section = re.search(
            rf"^## {package.title()}\n(.*?)(?=^## |\Z)", gallery, re.M | re.S
        )
        if section is None:
            continue
        for part in re.split(r"^### ", section[1], flags=re.M)[1:]:
            heading, _, body = part.partition("\n")
            blocks = re.findall(r"^```math\n.*?^```$", body, re.M | re.S)
            anchor = heading.strip().lower()
            link = f"[Formula, picture and use](../gallery.md#{anchor})"
            found[f"segjax.{package}.{heading.strip()}"] = "\n\n".join([*blocks, link])
    return found


def _value(full: str):
    package, _, name = full.rpartition(".")
    if not package:
        return importlib.import_module(full)
    return getattr(importlib.import_module(package), name)
