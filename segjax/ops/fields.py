"""Further entries of a batch, packed so that augmentations know how to move them."""

from collections.abc import Mapping
from typing import Any

from segjax.typing import Batch, Field

_MOVED = ("linear", "nearest")


def pack_fields(batch: Batch, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Puts maps under `linear` or `nearest`, by how they are to be read.

    Args:
        batch: A batch or an example with these fields.
        fields: What each further entry is; "none" stays where it is.

    Returns:
        The batch with nested dicts `linear` and `nearest`, where there are any.
    """
    packed = dict(batch)
    for name, field in fields.items():
        if field.resample in _MOVED and name in packed:
            packed.setdefault(field.resample, {})[name] = packed.pop(name)
    return packed


def unpack_fields(batch: Batch) -> dict[str, Any]:
    """The inverse of `pack_fields`."""
    rest = {k: v for k, v in batch.items() if k not in _MOVED}
    for kind in _MOVED:
        rest |= batch.get(kind, {})
    return rest
