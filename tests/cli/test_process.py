"""Process settings of the command, tested in a separate process."""

import json
import subprocess
import sys

MEMORY = """
import json
import numpy as np
from segjax.cli import process
from segjax.train import memory

def resident():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

process.keep_freed_memory()
sizes = [resident()]
array = np.ones(2**24)
sizes.append(resident())
del array
sizes.append(resident())
memory.trim_memory()
sizes.append(resident())
print(json.dumps(sizes))
"""


def test_freed_memory_is_kept_until_trimmed():
    out = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    before, full, freed, given_back = json.loads(out.stdout)  # MiB; the array is 128.
    assert full - before > 120
    assert freed - before > 120
    assert given_back - before < 64
