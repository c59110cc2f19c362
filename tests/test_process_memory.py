"""The allocator's settings, tested in a process of their own."""

import json
import pathlib
import subprocess
import sys

import pytest

PRELUDE = """
import json
import pathlib
import resource
import numpy as np
from segjax import memory

def size(field, file="status"):
    lines = pathlib.Path("/proc/self", file).read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
"""
KEPT = """
memory.keep_freed_memory()
memory.use_large_pages()
sizes = [size("VmRSS")]
array = np.ones(2**24)
sizes.append(size("VmRSS"))
del array
sizes.append(size("VmRSS"))
memory.trim_memory()
sizes.append(size("VmRSS"))
print(json.dumps(sizes))
"""
# NumPy asks for large pages itself from 4 MB: blocks of 1 MB show what glibc does.
PAGES = """
memory.keep_freed_memory()
memory.use_large_pages()
sizes = []
for _ in range(2):
    blocks = [np.ones(2**17) for _ in range(256)]
    sizes.append(size("AnonHugePages", "smaps_rollup"))
    del blocks
    memory.trim_memory()
print(json.dumps(sizes))
"""
ADDRESSES = """
sizes = [size("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
memory.keep_freed_memory()
memory.use_large_pages()
sizes.append(size("VmSize"))
print(json.dumps(sizes))
"""
LARGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def run(code):
    command = [sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # MiB


def test_freed_memory_is_kept_until_trimmed():
    before, full, freed, given_back = run(KEPT)  # The array is 128 MiB.
    assert full - before > 120
    assert freed - before > 120
    assert given_back - before < 64


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(),
    reason="this Linux has no large pages",
)
def test_memory_is_in_large_pages_also_after_trimming():
    first, second = run(PAGES)  # The blocks are 256 MiB.
    assert first > 200
    assert second > 200


def test_limited_addresses_are_left_to_the_program():
    before, after = run(ADDRESSES)
    assert after - before < 512
