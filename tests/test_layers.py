"""Who imports whom: the table of docs/architecture.md, held."""

import ast
import pathlib
import subprocess
import sys

import pytest

import segjax

PACKAGE = pathlib.Path(segjax.__file__).parent
LAYERS = {
    "typing": set(),
    "errors": set(),
    "memory": set(),
    "compiler": set(),
    "onednn": {"typing"},
    "optional": {"errors"},
    "files": {"typing", "optional"},
    "multihost": {"typing"},
    "terminal": set(),
    "signals": set(),
    "run_folder": {"typing", "files", "compiler", "onednn"},
    "ops": {"typing", "onednn"},
    "forward": {"typing", "ops"},
    "cpu_inference": {"typing", "forward", "compiler", "onednn"},
    "model_file": {"typing", "files", "ops", "forward", "models"},
    "losses": {"typing", "ops"},
    "metrics": {"typing", "ops", "optional"},
    "models": {"typing", "ops"},
    "data": {"typing", "ops", "files", "optional"},
    "planning": {"typing", "ops", "data", "onednn"},
    "experiments": {
        *("data", "interop", "losses", "metrics", "models", "ops", "planning", "train"),
    },
    "train": {
        *("typing", "files", "ops", "forward", "cpu_inference", "model_file"),
        "run_folder",
        *(
            "multihost",
            "signals",
            "terminal",
            "compiler",
            "memory",
            "metrics.mean",
            "metrics.combine",
        ),
    },
    "inference": {
        *("typing", "files", "ops", "forward", "model_file", "models", "viz"),
        *("compiler", "cpu_inference", "optional"),
    },
    "export": {
        *("typing", "files", "ops", "forward", "models", "inference", "optional"),
        *("compiler", "__version__"),
    },
    "serve": {"files", "ops", "viz", "inference", "export", "optional"},
    "interop": {"typing", "ops", "files", "optional"},
    "viz": {"typing", "ops", "run_folder.schema", "optional"},
}
ONLY = {
    "flax.linen": {"models"},
    "tensorflow_datasets": {"data"},
    "grain": {"data"},
    "tensorflow": set(),
    "torch": set(),
}
ACROSS = {"cli", "__init__", "__main__"}
"""What may import everything."""
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Full dotted names of what a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path):
    room = room_of(path)
    for name in imported(path):
        for package, rooms in ONLY.items():
            if name == package or name.startswith(f"{package}."):
                assert room in rooms, f"{room} imports {name}"
        if not name.startswith("segjax.") or room in ACROSS:
            continue
        inside = name.removeprefix("segjax.")
        allowed = LAYERS[room] | {room, "errors"}
        assert any(
            inside == other or inside.startswith(f"{other}.") for other in allowed
        ), f"{room} imports {name}"


def test_every_room_is_in_the_table():
    rooms = {room_of(path) for path in FILES} - ACROSS
    assert rooms <= LAYERS.keys()


def test_importing_segjax_is_light():
    """No heavy library, and under 0.3 s on top of jax (median of five)."""
    code = """
import sys, time, jax
before = set(sys.modules)
start = time.perf_counter()
import segjax
took = time.perf_counter() - start
heavy = {"tensorflow_datasets", "matplotlib", "tensorflow", "torch", "grain"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print(took)
"""
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], text=True))
        for _ in range(3)
    ]
    assert sorted(times)[1] < 0.3


def test_subpackages_load_when_used():
    assert "losses" in dir(segjax)
    assert segjax.losses.soft_dice
    with pytest.raises(AttributeError, match="no attribute 'lossses'"):
        segjax.lossses  # noqa: B018


def test_subpackages_need_no_import_of_their_own():
    """In a process of its own: others import them for all."""
    code = "import segjax; print(segjax.interop.load.__module__, segjax.viz.__name__)"
    done = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert done == "segjax.interop.folder segjax.viz\n"


def test_no_two_test_files_share_a_name():
    """Pytest would stop at the second one."""
    names = [path.name for path in pathlib.Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
