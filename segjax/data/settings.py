"""Checks of a pipeline's settings."""

from collections.abc import Mapping
from typing import Any

from segjax.typing import Field

_TAKEN = frozenset(
    "image label valid weight index size boxes classes masks object_mask crowd".split()
) | {"left_out", "record", "fault", "linear", "nearest", "name"}
"""Names of entries of batches, and of examples on their way to them."""

_LEAST = {
    "multiple": 1,
    "max_shapes": 1,
    "threads": 1,
    "workers": 0,
    "cache_bytes": 0,
    "skip_corrupt": 0,
}


def check_least(pipeline: Any) -> None:
    """Raises a ValueError for a setting that is below its least value."""
    for name, least in _LEAST.items():
        if getattr(pipeline, name) < least:
            raise ValueError(
                f"{name} must be at least {least}, got {getattr(pipeline, name)}."
            )
    for name in ("max_objects", "eval_max_objects"):
        slots = getattr(pipeline, name)
        if slots is not None and slots < 1:
            raise ValueError(f"{name} must be at least 1, got {slots}.")
    if pipeline.eval_max_objects and not pipeline.max_objects:
        raise ValueError("eval_max_objects needs max_objects too. Give both.")


def share_of(batch_size: int, process_index: int, process_count: int) -> slice:
    """Which rows of each batch are a process's."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size must be a positive multiple of the {process_count} "
            f"processes, got {batch_size}. Change it to a multiple."
        )
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def check_fields(fields: Mapping[str, Field]) -> None:
    """Raises a ValueError for a name that is taken, or what is no `Field`."""
    for name, field in fields.items():
        if name in _TAKEN:
            raise ValueError(
                f"field {name!r} has a name that batches use already. Store it under "
                f"another one."
            )
        if not isinstance(field, Field):
            raise ValueError(
                f'field {name!r} needs a data.Field("linear"), "nearest" or "none", '
                f"got {field!r}."
            )
