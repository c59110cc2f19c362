"""Reports of a failed save that asyncio writes when it likes."""

import asyncio
import gc
import logging

import pytest

from segjax.files import orbax

FAILED = "RESOURCE_EXHAUSTED: Failed to write 9 bytes [os_error_code='28']"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [(FAILED, []), ("else", ["Future exception was never retrieved"])],
)
def test_arrays_whose_failure_nobody_awaited(reason, shown, caplog):
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    with pytest.raises(OSError, match="full"), orbax.quiet():
        raise OSError("full")
    future.set_exception(ValueError(reason))
    with caplog.at_level(logging.ERROR, "asyncio"):
        del future
        gc.collect()
    loop.close()
    assert [r.message.splitlines()[0] for r in caplog.records] == shown
