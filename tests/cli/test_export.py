import pytest

from segjax import export
from tests.cli.conftest import expect_one_error_line

pytestmark = pytest.mark.usefixtures("untyped")  # A symbolic size is no int.


def test_export(segjax, run, tmp_path):
    out = tmp_path / "new" / "scenes.segjax"
    got = segjax("export", run, "--out", out)
    assert got.code == 0, got.err
    assert f"Written: {out}" in got.out
    assert export.load(out).classes == ("background", "square", "bar")
    assert segjax("export", run, "--out", out).code == 0  # It replaces its own.


def test_mistakes_are_one_line(segjax, run, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    got = segjax("export", run, "--out", other)
    expect_one_error_line(got, "notes.txt exists and is not an exported model")
    assert other.read_text() == "mine"
    expect_one_error_line(segjax("export", run, "--out", tmp_path), "not an exported")
    expect_one_error_line(segjax("export"), "needs a run folder")
    expect_one_error_line(segjax("export", tmp_path, "--out", "x"), "holds no model")
    out = tmp_path / "x"
    got = segjax("export", run, "--out", out, "--size", 0, 4)
    expect_one_error_line(got, "at least 1")
    (tmp_path / "file").write_text("")
    got = segjax("export", run, "--out", tmp_path / "file" / "x")
    expect_one_error_line(got, "file")
    assert not out.exists()
