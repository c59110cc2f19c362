"""Every notebook runs from top to bottom, in an empty folder, as a plain script."""

import os
import subprocess
import sys

import pytest

from docs.tools import notebooks


@pytest.mark.slow
@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_notebook(script, tmp_path):
    # Their own assertions compare the numbers that their text claims.
    environment = notebooks.environment() | {"MPLBACKEND": "agg"}
    environment["XLA_FLAGS"] = ""  # One device, as users have.
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not os.listdir(tmp_path)


def test_text_and_outputs_of_a_page():
    code = "```python\nprint(1)\n    indented()\n```\n"
    rich = "<pre style='x'>3 &lt; <b>4</b>\n</pre>\n"
    page = f"# Title\n\nText\n\n{code}\n    1\n\n    2\n\n\n{rich}    \n\nEnd\n"
    made = notebooks.cleaned(page, "name")
    assert made == (
        "# Title\n\n[Download the notebook](name.ipynb)\n\nText\n\n"
        f"{code}\n```text\n1\n\n2\n3 < 4\n```\n    \n\nEnd\n"
    )
