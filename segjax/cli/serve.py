"""`segjax serve RUN_OR_ARTIFACT`."""

import dataclasses
import os
import tempfile
import threading
from collections.abc import Sequence

from segjax import export, inference, serve
from segjax.cli import flags, runs, usage
from segjax.errors import UserError

_SAMPLES = "samples_input"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Flags of `segjax serve`.

    Attributes:
        port: Port of 127.0.0.1; 0 for a free one.
        max_bytes: The largest file of an image.
        max_pixels: The largest height times width of an image.
        trust: Execute the run's experiment.py if the model needs its code. Models made
            of segjax's own parts need none.
    """

    port: int = 7860
    max_bytes: int = serve.Limits.max_bytes
    max_pixels: int = serve.Limits.max_pixels
    trust: bool = False


def main(args: Sequence[str]) -> None:
    """Serves a page to try a model on, until Ctrl-C."""
    usage.print_if_asked(args, "segjax serve RUN_OR_FILE", ServeOptions)
    place = runs.folder_argument(args, "serve")
    options: ServeOptions = flags.read(
        ServeOptions, args[1:], prog=f"segjax serve {place}"
    )
    _check(options)
    model: inference.Model | export.Artifact
    if place.is_file():
        model, samples = export.load(place), []
    else:
        model = runs.load_model(place, trust=options.trust)
        samples = sorted((place / _SAMPLES).glob("*.png"))
    limits = serve.Limits(max_bytes=options.max_bytes, max_pixels=options.max_pixels)
    # gradio reads these when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="segjax-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        print("Loading the page.", flush=True)
        name = place.resolve().name
        page = serve.start(
            model, name=name, samples=samples, limits=limits, port=options.port
        )
        try:
            print(f"Serving {place} on {page.local_url} (Ctrl-C to stop).", flush=True)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _check(options: ServeOptions) -> None:
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port must be in [0, 65535], got {options.port}.")
    if options.max_bytes < 1 or options.max_pixels < 1:
        raise UserError(
            f"--max-bytes and --max-pixels must be at least 1, got "
            f"{options.max_bytes} and {options.max_pixels}."
        )
