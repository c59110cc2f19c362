"""Event files for TensorBoard; a full disk is an error, not a hang."""

import errno
import io
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from segjax import train


def events(folder):
    """Reads all events of a folder. A TFRecord is length, CRC, bytes, CRC."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_scalars_and_pictures(tmp_path):
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with train.TensorBoardWriter(tmp_path / "tensorboard") as tensorboard:
        tensorboard.add_scalar("loss", 0.5, 7)
        tensorboard.add_image("sample", picture, 9)
    first, scalar, image = events(tmp_path / "tensorboard")
    assert first.file_version == "brain.Event:2"
    (value,) = scalar.summary.value
    assert (scalar.step, value.tag, value.simple_value) == (7, "loss", 0.5)
    (value,) = image.summary.value
    assert (value.tag, value.image.height, value.image.width) == ("sample", 2, 4)
    png = Image.open(io.BytesIO(value.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(png), picture)


def test_a_resume_removes_only_later_steps(tmp_path):
    """TensorBoard drops events at or after the step of a START event."""
    with train.TensorBoardWriter(tmp_path) as tensorboard:
        tensorboard.drop_after(20)
    mark = events(tmp_path)[-1]
    assert mark.session_log.status == event_pb2.SessionLog.START
    assert mark.step == 21


def test_two_writers_at_once_write_two_files(tmp_path):
    with (
        train.TensorBoardWriter(tmp_path) as one,
        train.TensorBoardWriter(tmp_path) as two,
    ):
        one.add_scalar("a", 1.0, 1)
        two.add_scalar("b", 2.0, 1)
    tags = {v.tag for event in events(tmp_path) for v in event.summary.value}
    assert tags == {"a", "b"}


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    with train.TensorBoardWriter(tmp_path) as tensorboard:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tensorboard._events, "write_event", full)
        for step in range(20):  # More than tensorboardX's queue holds.
            with pytest.raises(train.SaveError, match=r"No space left on device\. Fix"):
                tensorboard.add_scalar("loss", 1.0, step)
