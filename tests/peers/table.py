"""Pairs of definitions, and what was found of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.peers.scenes import Scene

RELATIVE, ABSOLUTE = 2e-5, 1e-5


@dataclasses.dataclass(frozen=True)
class Pair:
    """One of our functions beside one of a peer's.

    Attributes:
        name: Of our function.
        ours: `scene -> values`.
        peer: Its name, with the options that make it ours as far as possible.
        theirs: `scene -> values`.
        differs: Reasons by scene; the key "" is every scene.
    """

    name: str
    ours: Callable[[Scene], Any]
    peer: str
    theirs: Callable[[Scene], Any]
    differs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def compare(pair: Pair, scene: Scene) -> tuple[np.ndarray, Any, bool]:
    """Our values, theirs (or their error), and whether they are the same numbers."""
    ours = np.asarray(pair.ours(scene), np.float64)
    try:
        theirs = np.asarray(pair.theirs(scene), np.float64)
    except Exception as error:
        return ours, error, False
    same = np.allclose(ours, theirs, RELATIVE, ABSOLUTE, equal_nan=True)
    return ours, theirs, bool(same)
