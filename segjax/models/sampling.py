"""Random numbers that belong to a thing, not to its place in an array."""

import jax
import numpy as np
from jaxtyping import Float, UInt

from segjax.typing import Array, Key


def ranks(key: Key, ids: Array) -> Float[Array, " n"]:
    """A number for each id, by which a sampler orders.

    An anchor keeps its number when the image is padded further, which moves its place
    among the anchors: so padding does not change what is drawn.

    Args:
        key: A key.
        ids: uint32 [N], distinct.

    Returns:
        float32 [N] in [0, 1).
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
    return jax.vmap(jax.random.uniform)(keys)


def proposal_ids(objects: int, proposals: int) -> UInt[np.ndarray, " n"]:
    """Ids of slots for objects, then of slots for proposals, whatever their numbers."""
    ids = np.concatenate([2**30 + np.arange(objects), np.arange(proposals)])
    return ids.astype(np.uint32)
