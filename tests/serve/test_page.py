"""The page in a real browser: upload, result, slider, download, and wrong files."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import segjax
from segjax import models
from segjax.forward import Forward
from tests.cli.conftest import expect_one_error_line
from tests.inference.test_load import pixels_of, write_run

CHROMIUM = shutil.which("chromium")
ROOT = pathlib.Path(__file__).parents[2]
WAIT = 120_000  # Milliseconds, on a busy machine.

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason='needs gradio: pip install "segjax[serve]"',
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs chromium and pip install playwright",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a sample, and files to upload."""
    folder = tmp_path_factory.mktemp("served")
    write_run(folder / "a run", Forward(models.SimpleCNN(num_classes=3, width=4)))
    (folder / "a run" / "samples_input").mkdir()
    sample = Image.fromarray(pixels_of(12, 10))
    sample.save(folder / "a run" / "samples_input" / "00.png")
    Image.fromarray(pixels_of(20, 33)).save(folder / "photo.png")
    Image.fromarray(pixels_of(400, 10)).save(folder / "tall.png")
    (folder / "text.png").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:-700])
    (folder / "heavy.png").write_bytes(os.urandom(40_000))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """(the page in a browser, its address, the requests of the browser)."""
    sync_api = pytest.importorskip("playwright.sync_api")
    command = [sys.executable, "-m", "segjax", "serve", str(folder / "a run")]
    limits = ["--max-bytes", "20000", "--max-pixels", "3000"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    with subprocess.Popen(
        [*command, "--port", "0", *limits], stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        try:
            found = (re.search(r"http://\S+", line) for line in server.stdout)
            url = next(match[0] for match in found if match)
            with sync_api.sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox"]
                )
                page, requests = browser.new_page(), []
                page.set_default_timeout(WAIT)
                page.on("request", lambda request: requests.append(request.url))
                page.goto(url)
                page.wait_for_selector("#segjax-input")
                yield page, url, requests
                browser.close()
        finally:
            server.terminate()


def upload(page, path):
    """Replaces the image of the page."""
    remove = page.locator("#segjax-input button[aria-label='Remove Image']")
    if remove.count():
        remove.click()
        page.wait_for_selector(".segjax-mask, .segjax-error", state="detached")
    page.set_input_files("#segjax-input input[type=file]", str(path))


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_page(page, folder, tmp_path):
    page, url, requests = page
    upload(page, folder / "photo.png")
    mask = page.locator(".segjax-mask")
    mask.wait_for()
    assert mask.evaluate("x => x.style.opacity") == "0.5"
    assert page.locator(".segjax-table tr").count() > 1
    page.locator("input[type=range]").fill("0.9")
    page.wait_for_function(
        "document.querySelector('.segjax-mask').style.opacity == '0.9'"
    )
    with page.expect_download() as download:
        page.get_by_text("Download").click()
    download.value.save_as(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as file:
        labels = np.array(Image.open(file.open("photo.png")))
    want = segjax.load(folder / "a run").predict(folder / "photo.png").labels
    np.testing.assert_array_equal(labels, want)
    for tab, name in (("Mask", "labels"), ("Uncertainty", "uncertainty")):
        page.get_by_role("tab", name=tab).click()
        page.locator(f".segjax-{name}").wait_for()
    for name, words in (
        ("text.png", "text.png is broken"),
        ("cut.png", "cut.png is broken"),
        ("tall.png", "tall.png is 10x400 pixels: needed at most 3,000 pixels"),
    ):
        upload(page, folder / name)
        alert = page.locator(".segjax-error").filter(has_text=words)
        alert.wait_for()
        assert alert.inner_text().startswith(words)
        assert str(folder) not in alert.inner_text()
    upload(page, folder / "heavy.png")
    page.get_by_text(
        'exceed the maximum allowed size of 19.5 Kb: "heavy.png"'
    ).wait_for()
    upload(page, folder / "photo.png")  # It goes on.
    page.locator(".segjax-uncertainty").wait_for()
    outside = [x for x in requests if not x.startswith((url, "data:", "blob:"))]
    assert not outside
    assert not page.eval_on_selector_all("a[href^=http]", "links => links.length")


@needs_gradio
def test_mistakes_are_one_line(folder, tmp_path):
    def serve(*args):
        done = subprocess.run(
            [sys.executable, "-m", "segjax", "serve", *map(str, args)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        done.code, done.err = done.returncode, done.stderr
        return done

    (tmp_path / "text").write_text("hello")
    expect_one_error_line(serve(tmp_path / "text"), "is not an exported model")
    expect_one_error_line(serve(folder / "a run", "--port", 70000), "[0, 65535]")


def test_without_gradio(folder, without):
    without("gradio")
    model = segjax.load(folder / "a run")
    with pytest.raises(ValueError, match=r'pip install "segjax\[serve\]"'):
        segjax.serve.start(model, name="x")
