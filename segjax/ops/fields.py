"""Further entries of a batch, grouped by how they are resampled."""

from collections.abc import Mapping
from typing import Any

from segjax.errors import UserError
from segjax.typing import Batch, Field

_GROUPS = ("linear", "nearest")


def pack_fields(batch: Batch, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Groups the maps among the fields into `linear` and `nearest`.

    Augmentations transform these groups with the image.

    Args:
        batch: A batch or an example, with all of the fields.
        fields: How each further entry is resampled, by name.

    Returns:
        The batch with `linear` and `nearest`, each {name: map}, if they are not empty,
        in place of the maps. Fields with "none" are unchanged.

    Raises:
        ValueError: If the batch lacks a field.
    """
    missing = sorted(fields.keys() - batch.keys())
    if missing:
        raise UserError(
            f"the batch has no field {missing[0]!r}, got {', '.join(sorted(batch))}. "
            f"Add it to the batch, or remove it from `fields`."
        )
    groups = {
        group: {k: batch[k] for k, f in fields.items() if f.resample == group}
        for group in _GROUPS
    }
    grouped = {name for group in groups.values() for name in group}
    rest = {k: x for k, x in batch.items() if k not in grouped}
    return rest | {group: maps for group, maps in groups.items() if maps}


def unpack_fields(batch: Batch) -> dict[str, Any]:
    """Ungroups the maps, the inverse of `pack_fields`."""
    made = {k: x for k, x in batch.items() if k not in _GROUPS}
    for group in _GROUPS:
        made |= batch.get(group, {})
    return made
