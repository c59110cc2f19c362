"""The page, made with gradio: upload, result, download."""

import dataclasses
import html
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from segjax import export, inference, optional
from segjax.errors import UserError
from segjax.files import writing
from segjax.serve import results

_HOST = "127.0.0.1"
_OPACITY = 0.5
_WAITING = 32
"""Images that may wait for their turn; more are refused with a sentence."""
_KEEP_SECONDS = 3600
"""How long uploads and results are kept."""
_CSS = """
.segjax-stack { position: relative; max-width: 100%; }
.segjax-stack img { display: block; width: 100% !important; max-width: none !important;
  height: auto; margin: 0 !important; }
.segjax-stack img + img { position: absolute; inset: 0; height: 100%; }
.segjax-stack img[data-rendering="pixelated"] { image-rendering: pixelated; }
.segjax-swatch { display: inline-block; width: 0.9em; height: 0.9em; margin-right:
  0.5em; border-radius: 2px; border: 1px solid #8888; vertical-align: middle; }
.segjax-table td, .segjax-table th { padding: 3px 14px 3px 0 !important;
  text-align: left; border: 0 !important; border-bottom: 1px solid #8884 !important; }
.segjax-table, .segjax-table tr { border: 0 !important; }
.segjax-error { border-left: 4px solid #d33; padding: 8px 12px; }
footer { display: none !important; }
"""
_SET_OPACITY = """(opacity) => {
  for (const mask of document.querySelectorAll(".segjax-mask"))
    mask.style.opacity = opacity;
}"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What an image may have.

    Attributes:
        max_bytes: Size of its file.
        max_pixels: Height times width.
    """

    max_bytes: int = 2**26
    max_pixels: int = 2**24


def start(
    model: inference.Model | export.Artifact,
    *,
    name: str,
    samples: Sequence[pathlib.Path] = (),
    limits: Limits | None = None,
    port: int = 7860,
) -> Any:
    """Starts the page in threads of this process and returns at once.

    The page is bound to 127.0.0.1, sends no telemetry, and loads nothing from other
    hosts. Images are predicted one after another. The environment variable
    GRADIO_TEMP_DIR names the folder of uploads and results.

    Args:
        model: Loaded by `segjax.load` or `segjax.export.load`. It predicts the first
            sample, or an empty image, before the page opens.
        name: Of the model, for the title.
        samples: Image files that the page offers.
        limits: Of images; the defaults of `Limits` unless given.
        port: To listen on; 0 for a free one.

    Returns:
        gradio's Blocks: `local_url` is the address, `close()` ends the page.

    Raises:
        optional.MissingPackageError: If gradio is not installed.
        ValueError: If the port is in use.
    """
    gradio = optional.require("gradio", extra="serve", purpose="segjax serve")
    limits = limits or Limits()
    _warm_up(model, samples)
    page = _page(gradio, model, name, samples, limits)
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    try:
        page.launch(
            server_name=_HOST,
            server_port=port or _free_port(),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=limits.max_bytes,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            theme=gradio.themes.Base(**fonts),
            css=_CSS,
        )
    except OSError as error:
        raise UserError(
            f"Port {port} of {_HOST} cannot be used ({error}). Give --port another "
            f"number, or 0 for a free one."
        ) from error
    return page


def _warm_up(
    model: inference.Model | export.Artifact, samples: Sequence[pathlib.Path]
) -> None:
    if samples:
        model.predict(samples[0])
        return
    about, side = model.description["image"], model.description["multiple"]
    fixed = model.description.get("inputs", {}).get("image", {}).get("shape", [])
    size = [n if isinstance(n, int) else side for n in fixed[1:3]] or [side, side]
    model.predict(np.zeros((*size, about["channels"]), about["dtype"]))


def _page(
    gradio: Any,
    model: inference.Model | export.Artifact,
    name: str,
    samples: Sequence[pathlib.Path],
    limits: Limits,
) -> Any:
    about = model.description["image"]
    page = gradio.Blocks(
        analytics_enabled=False,
        title=f"segjax: {name}",
        delete_cache=(_KEEP_SECONDS, _KEEP_SECONDS),
    )
    with page:
        gradio.HTML(
            f"<h2>{html.escape(name)}</h2><p>Images with {about['channels']} channels "
            f"of dtype {about['dtype']}, up to {limits.max_pixels:,} pixels and "
            f"{limits.max_bytes:,} bytes. They stay on this machine.</p>"
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                image = gradio.Image(
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="Image: drop, paste or choose",
                    height=260,
                    buttons=[],
                    elem_id="segjax-input",
                )
                image.preprocess = _path_of
                if samples:
                    gradio.Examples(
                        [[str(path)] for path in samples], [image], label="Samples"
                    )
                opacity = gradio.Slider(0, 1, _OPACITY, step=0.01, label="Opacity")
                message, table = gradio.HTML(), gradio.HTML()
                download = gradio.DownloadButton("Download", interactive=False)
            with gradio.Column(scale=2):
                tabs = []
                for title in ("Overlay", "Mask", "Uncertainty"):
                    with gradio.Tab(title):
                        tabs.append(gradio.HTML())
        hidden = {"api_visibility": "private"}
        image.change(
            _segment(gradio, model, limits),
            [image, opacity],
            [message, *tabs, table, download],
            show_progress_on=tabs,
            **hidden,
        )
        opacity.input(None, [opacity], None, js=_SET_OPACITY, **hidden)
    return page


def _path_of(payload: Any) -> str | None:
    """The uploaded file as it is: gradio's own form would open it."""
    return None if payload is None else payload.path


def _segment(
    gradio: Any, model: inference.Model | export.Artifact, limits: Limits
) -> Callable[[str | None, float], tuple]:
    """The function behind the page: an uploaded file to all that is shown."""

    def segment(path: str | None, opacity: float) -> tuple:
        if path is None:
            return "", "", "", "", "", gradio.DownloadButton(interactive=False)
        file = pathlib.Path(path)
        try:
            _check_bytes(file, limits)
            prediction = model.predict(file, max_pixels=limits.max_pixels)
        except ValueError as error:
            text = html.escape(str(error).replace(path, file.name))
            text = f'<div class="segjax-error" role="alert">{text}</div>'
            return text, "", "", "", "", gradio.DownloadButton(interactive=False)
        found = results.describe(prediction, opacity=opacity)
        made = gradio.DownloadButton(
            value=str(_save(prediction, file)), interactive=True
        )
        return "", found.overlay, found.mask, found.uncertainty, found.table, made

    return segment


def _check_bytes(file: pathlib.Path, limits: Limits) -> None:
    size = file.stat().st_size
    if size > limits.max_bytes:
        raise UserError(
            f"{file} has {size:,} bytes: needed at most {limits.max_bytes:,}; use a "
            f"smaller file."
        )


def _save(prediction: inference.Prediction, file: pathlib.Path) -> pathlib.Path:
    """Writes the download beside the upload, in gradio's folder: a zip."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=file.parent))
    label = folder / f"{file.stem}.png"
    prediction.save(label)
    target = folder / f"{file.stem}_segjax.zip"
    parts = [label, label.with_suffix(".json")]
    with writing.atomic(target) as temporary, zipfile.ZipFile(temporary, "w") as out:
        for part in parts:
            if part.exists():
                out.write(part, part.name)
    return target


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]
