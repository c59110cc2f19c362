"""A cache of decoded examples with a byte budget."""

import threading
from collections.abc import Callable, Hashable, Mapping

import numpy as np


class DecodedCache:
    """Caches the first examples that fit, and never evicts.

    Every epoch reads every example once, so the least recently used example is the next
    one needed, and an LRU cache would never hit.
    """

    def __init__(self, limit: int):
        """Starts empty.

        Args:
            limit: Bytes of arrays to cache in total; 0 disables the cache.
        """
        self._free = limit
        self._cached: dict[Hashable, Mapping[str, np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, decode: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """Returns the cached example, or decodes it and caches it if it fits.

        Args:
            key: Identifies the example.
            decode: Decodes it. Two threads that miss at the same time both call it.

        Returns:
            Arrays shared by all callers: do not write to them.
        """
        if key in self._cached:
            return self._cached[key]
        example = decode()
        size = sum(x.nbytes for x in example.values())
        with self._lock:
            if key not in self._cached and size <= self._free:
                self._free -= size
                self._cached[key] = example
        return example
