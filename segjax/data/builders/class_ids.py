"""Class names and mask values of a user's own folder."""

from collections.abc import Sequence

import numpy as np

from segjax import ops
from segjax.data import stored
from segjax.data.builders import files, masks, sources
from segjax.errors import UserError
from segjax.files import limits, reading
from segjax.typing import IGNORE_INDEX

_IGNORE_16 = ops.ignore_index(np.uint16)
NAMES_FILE = "classes.txt"


def read_names(tree: sources.Tree) -> tuple[str, ...] | None:
    """Reads the class names from classes.txt; None if there is no such file.

    Raises:
        ValueError: If there are no names, two equal ones, or one is not printable.
    """
    if NAMES_FILE not in tree.files(""):
        return None
    where = tree.shown(NAMES_FILE)
    content = tree.read(NAMES_FILE, max_bytes=limits.TEXT_BYTES)
    lines = reading.decode_text(content, where).splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    files.check_names(names, where)
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"{where} names {len(names)} classes, "
            f"{len(set(names))} of them different: needed one name per line, all "
            f"different."
        )
    return names


def known_ids(
    tree: sources.Tree,
    mask_names: Sequence[str],
    *,
    names: Sequence[str] | None,
    ids: Sequence[int] | None,
    ignore_index: int | None,
) -> tuple[dict[int, int], type[np.uint8] | type[np.uint16]]:
    """Maps each allowed mask value to a class id.

    Args:
        tree: Contains the masks.
        mask_names: Names of the masks' files.
        names: Class names, if they are given.
        ids: The mask values of class 0, 1, ..., if they are given.
        ignore_index: The mask value of ignored pixels.

    Returns:
        The map, and the dtype of labels.
    """
    given = ids
    if ids is None:
        ids = range(len(names) if names else _max_ids(tree, mask_names))
    if names and len(names) != len(ids):
        raise UserError(
            f"ids lists {len(ids)} values, {tree.shown(NAMES_FILE)} {len(names)} "
            f"names: needed one value for each name."
        )
    if not 0 < len(set(ids)) == len(ids) < _IGNORE_16:
        raise UserError(
            f"ids must be 1 to {_IGNORE_16 - 1} different values, got {len(ids)}, "
            f"{len(set(ids))} of them different."
        )
    ignored = ignore_index
    if ignored == IGNORE_INDEX and len(ids) > IGNORE_INDEX:
        ignored = _IGNORE_16
    # If the number of classes is not given, 0 to 254 are possible, as in 8-bit masks.
    counted = bool(names or given) or len(ids) > IGNORE_INDEX
    dtype = stored.label_dtype(len(ids)) if counted else np.uint8
    known = {} if ignored is None else {ignored: ops.ignore_index(dtype)}
    known |= {value: i for i, value in enumerate(ids) if given or value != ignored}
    return known, dtype


def _max_ids(tree: sources.Tree, mask_names: Sequence[str]) -> int:
    """Returns the number of possible ids: 255, or more if a 16-bit mask has more."""
    largest = 0
    for name in mask_names:
        if masks.may_exceed_8_bits(tree, name):
            ids = masks.read_ids(tree, name)
            largest = max(largest, int(ids[ids != _IGNORE_16].max(initial=0)))
    return IGNORE_INDEX if largest <= IGNORE_INDEX else largest + 1


def check_plausible(
    where: str,
    found: Sequence[int],
    *,
    names: Sequence[str] | None,
    ignored: int | None,
) -> None:
    """Rejects masks that are pictures: black and white, or ids in large steps.

    Args:
        where: The source, for messages.
        found: The ids in all masks, without the ignored one.
        names: Class names, if they are given.
        ignored: The mask value of ignored pixels, if there are such pixels.
    """
    values = sorted([*found, *([] if ignored is None else [ignored])])
    largest = max(found, default=0)
    if ignored is not None and largest == 0:
        trouble = "all other pixels would be ignored"
    elif not names and largest >= 32 and len(found) * 4 <= largest:
        trouble = "most classes would be empty"
    else:
        return
    shown = ", ".join(map(str, values))
    raise UserError(
        f"the masks in {where} hold only the values {shown}: needed class ids 0, 1, 2, "
        f"... ({trouble}); pass ids=({shown}) (--ids {shown.replace(',', '')}) to map "
        f"them to classes 0 to {len(values) - 1}."
    )
