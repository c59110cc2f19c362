"""What several processes must decide alike."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_MOST = 2**16


def of_the_first(value: Any) -> Any:
    """What the first process passed, in all of them; each must call this.

    Args:
        value: JSON values of up to 64 KiB. They come back as JSON has them: tuples
            as lists.
    """
    if jax.process_count() == 1:
        return json.loads(json.dumps(value))
    text = json.dumps(value).encode().ljust(_MOST)
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
    return json.loads(bytes(np.asarray(sent)))


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
