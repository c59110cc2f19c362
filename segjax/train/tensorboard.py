"""Scalars and images for TensorBoard."""

import io
import math
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image

from segjax.run_folder.errors import saving

_FLUSH_SECONDS = 20.0


def _messages() -> tuple[Any, Any, Any]:
    """Imports TensorBoard's messages Event, SessionLog and Summary.

    Not at the top: tensorboardX imports PyTorch where it is installed, which is slow.
    """
    from tensorboardX.proto import event_pb2, summary_pb2

    session_log = event_pb2.SessionLog  # pyright: ignore
    return event_pb2.Event, session_log, summary_pb2.Summary  # pyright: ignore


class TensorBoardWriter:
    """Writes scalars and images for TensorBoard. Use as a context manager.

    Events are written in the calling thread: tensorboardX's SummaryWriter uses another
    thread, and hangs once that thread has died of a full disk.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens a new event file.

        Args:
            folder: Created if missing; TensorBoard reads all files in it.
        """
        from tensorboardX.event_file_writer import EventsWriter

        self._path = folder
        with saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # File names have a resolution of seconds; two files must differ.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._flushed = -math.inf

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, *_) -> None:
        with saving(self._path):
            self._events.close()

    def drop_after(self, step: int) -> None:
        """Makes TensorBoard drop the later steps of earlier files."""
        event, session_log, _ = _messages()
        start = session_log(status=session_log.START)
        self._write(event(session_log=start), step + 1)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self._add(step, tag=name, simple_value=value)

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Adds an image, uint8 [H, W, 3]."""
        height, width, _ = image.shape
        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        _, _, summary = _messages()
        image = summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=png.getvalue(),
        )
        self._add(step, tag=name, image=image)

    def _add(self, step: int, **value: Any) -> None:
        event, _, summary = _messages()
        made = summary(value=[summary.Value(**value)])
        self._write(event(summary=made), step)

    def _write(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        with saving(self._path):
            self._events.write_event(event)
            if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
