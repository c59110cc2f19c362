"""Keeping decoded examples in memory, as many as a budget holds."""

import threading
from collections.abc import Callable, Hashable, Mapping

import numpy as np


class DecodedCache:
    """The first examples that fit; nothing is ever thrown out again.

    Every epoch reads every example once, so that the least recently used one is
    the next to be needed: a cache that evicts would never hit.
    """

    def __init__(self, limit: int):
        """An empty cache.

        Args:
            limit: Bytes of arrays to keep in total; 0 keeps none.
        """
        self._room = limit
        self._held: dict[Hashable, Mapping[str, np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, decode: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """The kept example, or a freshly decoded one, kept if there is room.

        Args:
            key: Names the example.
            decode: Makes it. Two threads that miss at once both call it.

        Returns:
            Arrays shared by all callers: not to be written to.
        """
        if key in self._held:
            return self._held[key]
        example = decode()
        size = sum(x.nbytes for x in example.values())
        with self._lock:
            if key not in self._held and size <= self._room:
                self._room -= size
                self._held[key] = example
        return example
