"""Random numbers by id, independent of the position in an array."""

import jax
import numpy as np
from jaxtyping import Float, UInt

from segjax.typing import Array, Key


def ranks(key: Key, ids: Array) -> Float[Array, " n"]:
    """Draws a random number for each id, by which a sampler orders.

    Padding an image changes the positions of its anchors in the array, but not their
    ids, so sampling does not depend on padding.

    Args:
        key: A key.
        ids: uint32 [N], distinct.

    Returns:
        float32 [N] in [0, 1).
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
    return jax.vmap(jax.random.uniform)(keys)


def proposal_ids(objects: int, proposals: int) -> UInt[np.ndarray, " n"]:
    """Ids of objects, then of proposals, independent of the numbers of each other."""
    ids = np.concatenate([2**30 + np.arange(objects), np.arange(proposals)])
    return ids.astype(np.uint32)
