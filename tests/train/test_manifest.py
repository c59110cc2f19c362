"""`run.json` records the code, the environment and the resumes of a run."""

import json
import os
import pathlib
import subprocess

import jax
import pytest

import segjax
from segjax.run_folder import environment, manifest
from tests.scenes import experiment


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one script in it."""

    def git(*args):
        subprocess.run(["git", "-C", tmp_path, *args], check=True, capture_output=True)

    script = tmp_path / "script.py"
    script.write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(*who, "commit", "-qm", "first")
    return script


def begin(run, script):
    run.mkdir()
    manifest.write_manifest(run, experiment(), flags={"a": 1}, script=script)
    return json.loads((run / "run.json").read_text())


def test_everything_needed_to_repeat_a_run_is_recorded(tmp_path, checkout):
    found = begin(tmp_path / "run", checkout)
    assert found["flags"] == {"a": 1}
    assert found["seed"] == 0
    assert len(found["code"]["commit"]) == 40
    assert found["code"]["dirty"] is False
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["segjax"]
    assert len(found["devices"]) == jax.device_count()
    assert found["devices"][0].startswith("cpu:0")
    assert found["xla_flags"] == os.environ["XLA_FLAGS"]
    assert found["processes"] == 1
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]
    assert found["jax"]["jax_enable_x64"] is False
    assert found["data"]["fingerprint"]
    assert found["resumes"] == []


def test_the_code_digest_depends_on_the_script(checkout):
    before = environment.code_digests(checkout)
    checkout.write_text("x = 2\n")
    after = environment.code_digests(checkout)
    assert after["dirty"]
    assert after["commit"] == before["commit"]
    assert after["script"] != before["script"]
    assert after["segjax"] == before["segjax"]


def test_the_code_digest_depends_on_segjax(checkout, tmp_path, monkeypatch):
    copy = tmp_path / "package"
    copy.mkdir()
    original = pathlib.Path(segjax.__file__).parent
    for name in ("typing.py", "__init__.py"):
        (copy / name).write_bytes((original / name).read_bytes())
    monkeypatch.setattr(environment, "_PACKAGE", copy)
    before = environment.code_digests(checkout)["segjax"]
    assert environment.code_digests(checkout)["segjax"] == before
    (copy / "typing.py").write_bytes((copy / "typing.py").read_bytes() + b"\n")
    assert environment.code_digests(checkout)["segjax"] != before


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "commit" not in environment.code_digests(tmp_path / "none.py")


def test_resumes_are_appended_and_nothing_else_changes(tmp_path, checkout):
    run = tmp_path / "run"
    before = begin(run, checkout)
    manifest.append_resume(run, step=3, flags={"a": 2})
    manifest.append_resume(run, step=7, flags={"a": 3})
    after = json.loads((run / "run.json").read_text())
    resumes = after.pop("resumes")
    assert after | {"resumes": []} == before
    assert [r["step"] for r in resumes] == [3, 7]
    assert [r["flags"] for r in resumes] == [{"a": 2}, {"a": 3}]
    for name in ("time", "code", "versions", "devices", "cores", "xla_flags"):
        assert resumes[0][name]


def test_json_has_no_nan():
    value = {"a": [1.0, float("nan"), {"b": float("inf")}], "c": (1, "x")}
    want = {"a": [1.0, None, {"b": None}], "c": [1, "x"]}
    assert manifest.without_nan(value) == want
