"""Writing a model as one file of StableHLO and JSON, with `jax.export`."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

import segjax
from segjax import inference, optional
from segjax.errors import UserError
from segjax.export.program import INPUTS, make_program, meanings
from segjax.files import writing

FORMAT = 1
"""Version of the file; increased by changes that older readers would misread."""

METADATA, PROGRAM = "metadata.json", "program.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of zip entries, so that equal models are equal files."""


def save(
    model: inference.Model,
    path: str | os.PathLike,
    *,
    size: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> None:
    """Writes a model as one file for CPUs, CUDA GPUs and TPUs.

    The file holds preprocessing, network, selection of objects and pasting of their
    masks as one StableHLO program, and metadata. It runs with `jax.export`, without
    segjax; docs/model.md has an example. The file is a zip of `metadata.json` and
    `program.stablehlo`. Nothing in it is pickled.

    Args:
        model: Loaded by `segjax.load`.
        path: The file; replaced atomically.
        size: (height, width) of the images, for models that cannot be exported for
            all sizes; None for all sizes.
        batch_size: Images per call; None for any number.

    Raises:
        optional.MissingPackageError: If flatbuffers, which `jax.export` needs, is not
            installed.
        ValueError: If size or batch size are below 1, or the model cannot be exported
            for all of them.
    """
    optional.require("flatbuffers", extra="export", purpose="exporting a model")
    exported = _export(model, size, batch_size)
    text = json.dumps(_metadata(model, exported), indent=2, allow_nan=False)
    path = pathlib.Path(path)
    with writing.atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr(zipfile.ZipInfo(METADATA, _EPOCH), f"{text}\n")
        file.writestr(zipfile.ZipInfo(PROGRAM, _EPOCH), bytes(exported.serialize()))


def input_shapes(
    model: inference.Model, size: Sequence[int] | None, batch_size: int | None
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of `image` and `size`; letters b, h and w where free.

    Raises:
        ValueError: If a number is below 1.
    """
    numbers = [*(size or ()), *([] if batch_size is None else [batch_size])]
    if any(number < 1 for number in numbers) or (size and len(size) != 2):
        raise UserError(
            f"An export needs a size of HEIGHT WIDTH and a batch size of at least 1, "
            f"got {size} and {batch_size}. Leave them out to allow all."
        )
    multiple = model.description["multiple"]
    sides = [] if size else ["h", "w"]
    rounded = {s: f"floordiv({s} + {multiple - 1}, {multiple})" for s in sides}
    b, *free = jax.export.symbolic_shape(
        ", ".join(["b", *sides]),
        # True of all sizes, but JAX does not find out by itself.
        constraints=[f"{multiple}*{x} >= {s}" for s, x in rounded.items()]
        + [f"{x} >= 1" for x in rounded.values()],
    )
    batch = b if batch_size is None else batch_size
    height, width = size or free
    about = model.description["image"]
    return (
        jax.ShapeDtypeStruct((batch, height, width, about["channels"]), about["dtype"]),
        jax.ShapeDtypeStruct((batch, 2), jnp.int32),
    )


def _export(
    model: inference.Model, size: Sequence[int] | None, batch_size: int | None
) -> jax.export.Exported:
    shapes = input_shapes(model, size, batch_size)
    program = jax.jit(make_program(model.forward, model.variables, model.description))
    try:
        with _no_paths():
            return jax.export.export(program, platforms=PLATFORMS)(*shapes)
    except UserError:
        raise
    except Exception as error:  # Of JAX, Flax, or a model's own code.
        if size and batch_size:
            raise
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise UserError(
            f"{type(model.module).__name__} cannot be exported for all sizes "
            f"({reason}). Give --size HEIGHT WIDTH and --batch-size N."
        ) from error


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
    """Keeps the paths of this machine's source files out of the program."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _metadata(model: inference.Model, exported: jax.export.Exported) -> dict[str, Any]:
    """Describes a program; all that its user needs to know."""
    about = model.description
    inputs = dict(zip(INPUTS, exported.in_avals, strict=True))
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "format": FORMAT,
        "segjax": segjax.__version__,
        "jax": jax.__version__,
        "platforms": list(exported.platforms),
        "task": about["task"],
        "classes": list(model.classes),
        "palette": model.palette.tolist(),
        "image": dict(about["image"]),
        "multiple": about["multiple"],
        "inputs": _arrays(inputs, INPUTS),
        "outputs": _arrays(outputs, meanings(about["task"])),
    }


def _arrays(
    arrays: Mapping[str, Any], meaning: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "dtype": str(arrays[name].dtype),
            "shape": [n if isinstance(n, int) else str(n) for n in arrays[name].shape],
            "meaning": text,
        }
        for name, text in meaning.items()
    }
