"""Ctrl-C that comes where Python cannot raise it is raised a moment later."""

import pathlib
import subprocess
import sys
import textwrap

import pytest

WHERE = {
    "a callback of the garbage collector": """
        def callback(phase, info):
            gc.callbacks.remove(callback)
            interrupt_now()
        gc.callbacks.append(callback)
        gc.collect()
    """,
    "a destructor": """
        class Thing:
            def __del__(self):
                interrupt_now()
        Thing()
    """,
    "a callback of a weak reference": """
        class Thing: pass
        thing = Thing()
        kept = weakref.ref(thing, lambda _: interrupt_now())
        del thing
    """,
}
SCRIPT = """
import gc, os, signal, sys, time, weakref
from segjax.cli import interrupt

def interrupt_now():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.001)  # Python answers signals between two instructions.

def work():
{work}
    time.sleep(20)

hook = sys.unraisablehook
with interrupt.handled() as handler:
    handler.loading = False
    try:
        work()
    except KeyboardInterrupt:
        print("raised")
assert sys.unraisablehook is hook
"""


@pytest.mark.parametrize("where", WHERE)
def test_ctrl_c_that_cannot_be_raised_is_raised_later(where):
    work = textwrap.indent(textwrap.dedent(WHERE[where]), "    ")
    ended = in_python(SCRIPT.format(work=work))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("raised\n", "", 0)


def test_other_exceptions_are_told_as_ever():
    work = "    class Thing:\n        def __del__(self): 1 / 0\n    Thing()"
    ended = in_python(SCRIPT.format(work=work).replace("time.sleep(20)", "pass"))
    assert "Exception ignored in" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
    assert (ended.stdout, ended.returncode) == ("", 0)


THREAD = """
import importlib, os, signal, sys, threading, time
from segjax.cli.main import main

def work(args):
    threading.Thread(target=time.sleep, args=[300]).start()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(300)

importlib.import_module("segjax.cli.data").main = work
sys.argv = ["segjax", "data"]
main()
"""


def test_an_interrupted_command_does_not_wait_for_threads_of_libraries():
    ended = in_python(THREAD, timeout=100)
    assert (ended.stderr, ended.returncode) == ("interrupted.\n", 130)


def in_python(code, *, timeout=10):
    """Ten seconds, of which half a dozen mean that Ctrl-C was swallowed."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
