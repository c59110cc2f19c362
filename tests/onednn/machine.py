"""Where the extra `onednn` works."""

import os
import platform
import shutil
import sys

import pytest

NEEDED = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64")
    or not (shutil.which("c++") or os.environ.get("CI")),
    reason="the extra is for x86 Linux with a C++ compiler",
)
"""Skips tests elsewhere; in CI, x86 Linux without a compiler is a failure."""
