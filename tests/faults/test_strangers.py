"""A stranger's run, opened: nothing of it is executed, and nothing else is started.

A hook of the interpreter's own (`sys.addaudithook`) sees all that Python imports,
compiles, executes and opens, in a process of its own, and writes down:

- a file of the run whose content could be code and that is opened, imported or loaded;
- compiling and executing of code that is, or has text, of the run's;
- other processes, sockets, and classes that are looked up to unpickle something.

Left out: threads, which JAX starts; and `exec` of text that has nothing of the run's,
as of dataclasses and jaxtyping, which write functions of their own.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.cli.conftest import data_dir as data_dir
from tests.cli.conftest import run as run
from tests.cli.conftest import script as script
from tests.cli.conftest import source as source
from tests.scenes import examples

MARK = "text of the run's own"
HOOK = f"""
import os, pathlib, sys
run, out = os.path.realpath(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY)
CODE = (".py", ".pyc", ".pth", ".so", ".pyi", ".zip", ".egg")
STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
           "os.forkpty", "os.spawn", "pty.spawn", "socket.connect", "socket.bind",
           "socket.sendto", "socket.getaddrinfo", "pickle.find_class")

def of_run(path):
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str) or not os.path.exists(path):
        return False  # Such as "<string>", and numbers of open files.
    return os.path.realpath(path).startswith(run + os.sep)

def has_mark(value):
    if isinstance(value, bytes):
        return {MARK.encode()!r} in value
    return isinstance(value, str) and {MARK!r} in value

def texts(code):
    for value in code.co_consts:
        yield from texts(value) if hasattr(value, "co_consts") else [value]

def is_seen(event, args):
    if event in STARTED:
        return True
    if event == "open":
        return of_run(args[0]) and str(args[0]).endswith(CODE)
    if event in ("import", "ctypes.dlopen"):  # (module, file), (file,)
        return of_run(args[-1] if event == "ctypes.dlopen" else args[1])
    if event == "compile":
        return of_run(args[1]) or has_mark(args[0])
    if event == "exec":
        return of_run(args[0].co_filename) or any(map(has_mark, texts(args[0])))

busy = False

def hook(event, args):
    global busy
    if busy:  # Its own questions are no events.
        return
    busy = True
    try:
        if is_seen(event, args):
            os.write(out, f"{{event}} {{args!r:.200}}\\n".encode())
    finally:
        busy = False

sys.addaudithook(hook)
del sys.argv[1:3]
"""
HOSTILE = f'''"""{MARK}"""
import pathlib
pathlib.Path(__file__).with_name("executed").write_text("{MARK}")
'''
DECOYS = (
    "experiment.py",
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "__init__.py",
    "__main__.py",
    "numpy.py",
    "jax/__init__.py",
    "segjax/__init__.py",
    "checkpoints/__init__.py",
    "scenes.py",
)
LOAD = """
import numpy as np, segjax
model = segjax.load(run)
print(model.predict(np.zeros((16, 16, 3), np.uint8)).labels.shape)
"""
PREDICT = """
from segjax.cli.main import main
main(["predict", run, *sys.argv[1:]])
"""
CONTROLS = {
    "segjax": f"{LOAD}\ntry: model.experiment()\nexcept ValueError: pass",
    "runpy": "import runpy; runpy.run_path(f'{run}/experiment.py')",
    "path": "sys.path.insert(0, run); import sitecustomize, experiment",
    "exec": "exec(pathlib.Path(run, 'text.txt').read_text())",
    "eval": f"eval(repr({MARK!r}))",
    "process": "import subprocess; subprocess.run(['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "fork": "os.fork() or os._exit(0)",
    "socket": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "pickle": "import pickle; pickle.loads(pickle.dumps(pathlib.Path('x')))",
}


@pytest.fixture
def stranger(run, tmp_path):
    """A run that another made, with traps in it."""
    folder = shutil.copytree(run, tmp_path / "stranger")
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(HOSTILE)
    return folder


@pytest.fixture
def watched(stranger, tmp_path):
    """Runs code under the hook, inside of the run: what it saw, code and output."""

    def call(code, *args):
        script, seen = tmp_path / "script.py", tmp_path / "seen.txt"
        script.write_text(HOOK + code)
        seen.touch()
        env = os.environ | {"XLA_FLAGS": "", "XDG_DATA_HOME": str(tmp_path / "home")}
        env["PYTHONPATH"] = str(pathlib.Path(__file__).parents[2])
        ended = subprocess.run(
            [sys.executable, script, stranger, seen, *map(str, args)],
            cwd=stranger,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return seen.read_text().splitlines(), ended

    return call


@pytest.mark.slow
def test_a_strangers_run_that_is_loaded_executes_nothing(stranger, watched):
    seen, ended = watched(LOAD)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "(16, 16)\n"
    assert seen == []
    assert not list(stranger.rglob("executed"))


@pytest.mark.slow
def test_a_strangers_run_that_predicts_executes_nothing(stranger, watched, tmp_path):
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(examples(1)[0]["image"]).save(image)
    seen, ended = watched(PREDICT, image, "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert (out / "a.png").exists()
    assert seen == []
    assert not list(stranger.rglob("executed"))


@pytest.mark.parametrize("control", CONTROLS)
def test_the_hook_sees_what_it_is_for(stranger, watched, control):
    (stranger / "text.txt").write_text(f"open('executed', 'w').write({MARK!r})")
    seen, ended = watched(CONTROLS[control])
    assert ended.returncode == 0, ended.stderr
    assert seen
    executes = control in ("segjax", "runpy", "path", "exec")
    assert bool(list(stranger.rglob("executed"))) == executes
