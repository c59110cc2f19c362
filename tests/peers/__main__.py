"""Prints where our definitions and those of the peers differ."""

import warnings

import numpy as np

from tests.peers import losses, metrics
from tests.peers.scenes import scenes
from tests.peers.table import compare


def _short(values) -> str:
    if isinstance(values, Exception):
        return type(values).__name__
    return " ".join(f"{x:.4g}" for x in np.ravel(values)[:3])


def main() -> None:
    """One line a pair, and one for each scene in which it differs."""
    for name, pairs in {**losses.TABLE, **metrics.TABLE}.items():
        for pair in pairs:
            found = {k: compare(pair, scene) for k, scene in scenes().items()}
            agreed = sum(same for _, _, same in found.values())
            print(f"{name:30} {pair.peer:46} {agreed} of {len(found)} scenes")
            for scene, (ours, theirs, same) in found.items():
                if not same:
                    why = pair.differs.get(scene, pair.differs.get("", "?"))
                    print(f"  {scene}: {_short(ours)} | {_short(theirs)}: {why}")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
