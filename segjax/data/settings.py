"""Validation of a pipeline's settings."""

from collections.abc import Mapping
from typing import Any

from segjax.errors import UserError
from segjax.typing import Field

_RESERVED = frozenset(
    "image label valid weight index size boxes classes masks object_mask crowd".split()
) | {"num_dropped", "record", "fault", "linear", "nearest", "name"}
"""Names of entries of batches and of intermediate examples."""

_MINIMA = {
    "multiple": 1,
    "max_shapes": 1,
    "eval_pixels": 1,
    "num_threads": 1,
    "num_workers": 0,
    "cache_bytes": 0,
    "skip_corrupt": 0,
}


def check_minima(pipeline: Any) -> None:
    """Raises a ValueError for a setting below its minimum."""
    for name, minimum in _MINIMA.items():
        if getattr(pipeline, name) < minimum:
            raise UserError(
                f"{name} must be at least {minimum}, got {getattr(pipeline, name)}."
            )
    slots = pipeline.max_objects
    if slots is not None and slots < 1:
        raise UserError(f"max_objects must be at least 1, got {slots}.")


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns the rows of each batch that a process reads."""
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size must be a positive multiple of the {process_count} "
            f"processes, got {batch_size}. Change it to a multiple."
        )
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def check_fields(fields: Mapping[str, Field]) -> None:
    """Raises a ValueError for a reserved name, or a value that is not a `Field`."""
    for name, field in fields.items():
        if name in _RESERVED:
            raise UserError(
                f"field {name!r} has a name that batches use already. Rename it in the "
                f"data set."
            )
        if not isinstance(field, Field):
            raise UserError(
                f'field {name!r} needs a data.Field("linear"), "nearest" or "none", '
                f"got {field!r}."
            )
