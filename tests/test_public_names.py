"""Every package lists its public names in `__all__`."""

import importlib
import inspect
import pkgutil
import re

import pytest

import segjax

PACKAGES = ["segjax"] + [
    module.name
    for module in pkgutil.walk_packages(segjax.__path__, "segjax.")
    if module.ispkg and module.name not in ("segjax.files", "segjax.data.builders")
]


def sort_key(name):
    """Order of ruff's RUF022: constants, classes, functions; numbers by value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, [
        int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name.strip("_"))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert len(set(names)) == len(names) > 0
    assert names == sorted(names, key=sort_key)
    for name in names:
        value = getattr(module, name)
        if (
            inspect.isclass(value)
            or inspect.isroutine(value)
            or inspect.ismodule(value)
        ):
            assert inspect.getdoc(value), f"{package}.{name} needs a docstring"
    defined = {k for k, v in vars(module).items() if not inspect.ismodule(v)}
    public = {k for k in defined if not k.startswith("_")} - {"TYPE_CHECKING"}
    assert public <= set(names)
