"""Checks of arguments, when a function is traced: nothing of them is in its program.

Only values that are known without waiting for a program, such as NumPy arrays and the
arguments of a call outside `jit`, are looked at; under `jit` shapes and dtypes are.
"""

from typing import Any

import jax
import jax.core
import jax.export
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array


def shapes(**arrays: tuple[Array, str]) -> None:
    """Checks shapes by the letters of their axes.

    Args:
        **arrays: By the argument's name, the array and its axes, such as
            `logits=(logits, "B H W C"), labels=(labels, "B H W")`. A letter has one
            size in all arrays; a number is a size; a leading "..." is any axes.

    Raises:
        ValueError: If an array has another number of axes, or other sizes.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (array, axes) in arrays.items():
        shape, letters = np.shape(array), axes.split()
        if letters[0] == "...":
            letters = letters[1:]
            shape = shape[max(len(shape) - len(letters), 0) :]
        wanted = f"[{', '.join(axes.split())}]"
        if len(shape) != len(letters):
            raise UserError(
                f"{name} needs shape {wanted}, got {list(np.shape(array))}. Add or "
                f"remove axes."
            )
        for letter, size in zip(letters, shape, strict=True):
            known = (int(letter), "") if letter.isdigit() else sizes.get(letter)
            if known is None:
                sizes[letter] = size, name
            elif known[0] != size:
                of = f" as {known[1]} has" if known[1] else ""
                raise UserError(
                    f"{name} needs shape {wanted} with {letter} = {known[0]}{of}, got "
                    f"{list(np.shape(array))}. Give arrays of the same images."
                )


def as_mask(name: str, mask: Array) -> Array:
    """Converts a mask to bool: True where it is not 0, in any integer dtype.

    Returns:
        bool; a NumPy array if it was one.

    Raises:
        ValueError: If it has floats, which may be probabilities, or weights.
    """
    if not isinstance(mask, (jax.Array, np.ndarray)):
        mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    if not jnp.issubdtype(mask.dtype, jnp.integer):
        raise UserError(
            f"{name} needs a mask of bool or integers (not 0 is True), got "
            f"{mask.dtype}. Compare it with a threshold: {name} > 0.5."
        )
    return mask != 0


def as_class_ids(
    name: str, ids: Array, *, num_classes: int, valid: Array | None = None
) -> jax.Array:
    """Converts class ids of any integer dtype, or bool, to int32.

    Args:
        name: Of the argument.
        ids: Class ids.
        num_classes: C, or 0 if there is no limit.
        valid: bool, where an id is used; None for everywhere.

    Raises:
        ValueError: If they are not integers; if they are known, also if one of them is
            not in [0, C).
    """
    if not isinstance(ids, (jax.Array, np.ndarray)):
        ids = np.asarray(ids)
    if not (ids.dtype == bool or jnp.issubdtype(ids.dtype, jnp.integer)):
        raise UserError(
            f"{name} needs class ids of an integer dtype, got {ids.dtype}. Convert "
            f"them: {name}.astype('int32')."
        )
    if num_classes:
        _check_range(name, ids, num_classes, valid)
    return jnp.asarray(ids, jnp.int32)


def _check_range(name: str, ids: Array, num_classes: int, valid: Array | None) -> None:
    if not all(map(is_known, (ids, valid))):
        return
    known = np.asarray(ids)
    known = known if valid is None else known[np.broadcast_to(valid, known.shape)]
    wrong = known[(known < 0) | (known >= num_classes)]
    if wrong.size:
        raise UserError(
            f"{name} needs class ids in [0, {num_classes}) where valid, got "
            f"{wrong[0]} at {wrong.size} of {known.size} pixels. To ignore them: "
            f"{name}, valid = ops.split_ignored({name}, ignore_index={wrong[0]})."
        )


def is_known(x: Any) -> bool:
    """Whether values can be read: not when traced, nor spread over processes."""
    if isinstance(x, jax.core.Tracer):
        return False
    return not isinstance(x, jax.Array) or x.is_fully_addressable


def as_floats(name: str, values: Array) -> jax.Array:
    """Converts numbers to at least float32; integers, bfloat16 and float16 too.

    Raises:
        ValueError: If they are neither integers nor floats.
    """
    dtype = values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype
    if not jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(
        dtype, jnp.complexfloating
    ):
        raise UserError(f"{name} needs numbers, got {dtype}. Convert them to float32.")
    floating = jnp.issubdtype(dtype, jnp.floating)
    wide = jnp.promote_types(dtype, jnp.float32) if floating else jnp.float32
    return jnp.asarray(values, wide)


def floating(name: str, values: Array) -> jax.Array:
    """Converts integers and bools to float32; floats of any width stay.

    Raises:
        ValueError: If they are something else.
    """
    if jnp.issubdtype(jnp.result_type(values), jnp.bool_):
        return jnp.asarray(values, jnp.float32)
    if jnp.issubdtype(jnp.result_type(values), jnp.floating):
        return jnp.asarray(values)
    return as_floats(name, values)


def in_range(
    name: str,
    values: Array,
    *,
    least: int | float,
    most: int | float,
    where: Array | None = None,
) -> None:
    """Checks that numbers are in [least, most] or NaN, where they are known.

    Rounding, as of interpolated masks, may leave the range by 1e-5.

    Raises:
        ValueError: If one of them, in places where `where` is True, is not.
    """
    if not all(map(is_known, (values, where))):
        return
    known = np.asarray(values, np.float64)
    wrong = (known < least - 1e-5) | (known > most + 1e-5)
    if where is not None:
        wrong &= np.broadcast_to(where, known.shape)
    if wrong.any():
        raise UserError(
            f"{name} needs numbers in [{least}, {most}], got {known[wrong][0]:g} at "
            f"{np.count_nonzero(wrong)} of {known.size} places. Rescale them."
        )


def size(function: str, size: Any) -> None:
    """Checks (height, width): two whole numbers above 0, or symbols of `jax.export`.

    Raises:
        ValueError: If it is something else.
    """
    whole = (int, np.integer)
    fits = np.ndim(size) == 1 and len(size) == 2
    if not fits or not all(
        jax.export.is_symbolic_dim(side) or (isinstance(side, whole) and side > 0)
        for side in size
    ):
        raise UserError(
            f"{function} needs a size (height, width) of whole numbers above 0, got "
            f"{size}. Give two integers."
        )


def number(
    function: str,
    name: str,
    value: Any,
    *,
    least: int | float = -np.inf,
    most: int | float = np.inf,
    above: bool = False,
    below: bool = False,
) -> None:
    """Checks a number: finite, and in [least, most]; above: not `least` itself.

    Raises:
        ValueError: If it is out of range, infinite or NaN. A traced one is not known.
    """
    if isinstance(value, jax.core.Tracer):
        return
    low = value > least if above else value >= least
    high = value < most if below else value <= most
    if not (low and high and np.isfinite(value)):
        left, right = "(" if above else "[", ")" if below else "]"
        raise UserError(
            f"{function} needs a finite {name} in {left}{least}, {most}{right}, got "
            f"{value}."
        )


def whole_number(function: str, name: str, value: Any, *, least: int) -> None:
    """Checks a count.

    Raises:
        ValueError: If it is not an integer, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UserError(
            f"{function} needs a whole number for {name}, got {value!r}. Use {name}="
            f"{least} or more."
        )
    if value < least:
        raise UserError(
            f"{function} needs {name} of at least {least}, got {value}. Use {least} "
            f"or more."
        )
