"""Reading and atomic writing of `model.json` and its variables."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy

import segjax
from segjax.errors import UserError
from segjax.files import limits, reading, tensors, writing
from segjax.forward import Forward
from segjax.model_file import schema
from segjax.model_file.encoding import NotSerializableError, decode, encode
from segjax.typing import PyTree

MODEL_JSON = "model.json"
FORMAT = 1
"""Version of `model.json`; increased by changes that older readers would misread."""

_VARIABLES = "variables-*.safetensors"
_MAX_BYTES = 2**38
_PARTS = ("module", "preprocess", "model_inputs")
_FACTS = ("classes", "image", "task", "multiple", "max_shapes")


def write(
    folder: str | os.PathLike,
    forward: Forward,
    variables: PyTree,
    facts: Mapping[str, Any],
) -> None:
    """Writes a model; the previous model of the folder is replaced atomically.

    First, the variables are written to a file named by their digest, then `model.json`,
    which names that file, and then older variables are removed. Each file is written
    atomically.

    Args:
        folder: Created if it does not exist.
        forward: The network with its preprocessing. Parts that are not from segjax
            become null, and `needs_code` names the first one.
        variables: Nested dictionaries of arrays, on any device.
        facts: JSON values: `classes` names, `colors` "#rrggbb" per class (optional),
            `image` {"channels", "dtype", "low", "high"}, `task` "semantic", "instance"
            or "multilabel", `multiple` and `max_shapes` for prediction, `step`, and any
            others.

    Raises:
        ValueError: If a fact is missing, its name is reserved, or a variable cannot be
            stored.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(_flatten(variables))
    digest = hashlib.sha256(data).hexdigest()
    name = f"variables-{digest[:12]}.safetensors"
    description = {
        "format": FORMAT,
        "segjax": segjax.__version__,
        **_encode_parts(forward),
        "margin": forward.margin,
        "variables": {"name": name, "sha256": digest},
    }
    _check_facts(facts, description)
    text = json.dumps(description | dict(facts), indent=2, allow_nan=False)
    writing.write_bytes(folder / name, data)
    writing.write_bytes(folder / MODEL_JSON, f"{text}\n".encode())
    for path in [*folder.glob(_VARIABLES), *folder.glob(f".{_VARIABLES}.tmp")]:
        if path.name != name:
            path.unlink(missing_ok=True)


def read(folder: str | os.PathLike) -> tuple[dict[str, Any], PyTree]:
    """Reads a model's description and its variables, and verifies their SHA-256.

    Args:
        folder: Passed to `write` before. It may be written to concurrently.

    Returns:
        (content of `model.json`, nested dictionaries of NumPy arrays).

    Raises:
        ValueError: If a file is missing, damaged or written by a newer segjax.
    """
    folder = pathlib.Path(folder)
    description = _read_description(folder)
    while True:
        name = description["variables"]["name"]
        try:
            data = reading.read_bytes(folder / name, max_bytes=_MAX_BYTES)
            break
        except FileNotFoundError:
            # The model may have been replaced after `model.json` was read.
            description = _read_description(folder)
            if description["variables"]["name"] == name:
                raise UserError(
                    f"{folder / name} is missing, and {MODEL_JSON} names it. Copy the "
                    f"whole folder, or train again."
                ) from None
    if hashlib.sha256(data).hexdigest() != description["variables"]["sha256"]:
        raise UserError(
            _damaged(folder / name, "its SHA-256 is not that in model.json")
        )
    try:
        return description, _unflatten(tensors.parse(data))
    except ValueError as error:
        raise UserError(_damaged(folder / name, str(error))) from error


def build_forward(description: Mapping[str, Any]) -> Forward:
    """Builds the network of a description, with its preprocessing.

    Raises:
        NotSerializableError: If a part is not from segjax; `needs_code` names it.
        ValueError: If it names an unknown part, or attributes are invalid.
    """
    if description["needs_code"] is not None:
        raise NotSerializableError(description["needs_code"])
    try:
        parts = [decode(description[name]) for name in _PARTS]
        return Forward(*parts)
    except ValueError:
        raise
    except Exception as error:  # Constructors raise various types.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"a part of the model cannot be built ({reason}).") from error


def _encode_parts(forward: Forward) -> dict[str, Any]:
    values = (forward.model, forward.preprocess, forward.model_inputs)
    encoded: dict[str, Any] = {"needs_code": None}
    for name, value in zip(_PARTS, values, strict=True):
        try:
            encoded[name] = encode(value, part=name)
        except NotSerializableError as error:
            encoded[name] = None
            encoded["needs_code"] = encoded["needs_code"] or str(error)
    return encoded


def _check_facts(facts: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    missing = [name for name in _FACTS if name not in facts]
    if missing:
        raise UserError(f"facts of a model need {', '.join(missing)}; add them.")
    if facts["task"] not in schema.TASKS:
        raise UserError(
            f'A task needs to be "semantic", "instance" or "multilabel", got '
            f"{facts['task']!r}."
        )
    reserved = sorted(description.keys() & facts.keys())
    if reserved:
        raise UserError(
            f"facts of a model have reserved names: {', '.join(reserved)}; rename them."
        )


def _read_description(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / MODEL_JSON
    try:
        content = reading.read_bytes(path, max_bytes=limits.TEXT_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no model: {MODEL_JSON} is missing. Pass a run folder of "
            f"segjax train that has at least one checkpoint."
        ) from None
    try:
        description = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(_damaged(path, "it is not JSON")) from None
    version = description.get("format") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise UserError(_damaged(path, "it has no format number"))
    if version > FORMAT:
        raise UserError(
            f"{path} has format {version}, this version of segjax reads up to {FORMAT}."
            f" Update segjax to {description.get('segjax', 'a newer version')}."
        )
    missing = {"variables", "needs_code", *_FACTS, *_PARTS} - description.keys()
    if missing:
        raise UserError(_damaged(path, f"it has no {', '.join(sorted(missing))}"))
    wrong = schema.first_fault(description)
    if wrong:
        raise UserError(_damaged(path, wrong))
    return description


def _flatten(variables: PyTree) -> dict[str, np.ndarray]:
    """Flattens to arrays on the host, with nested names joined by "/"."""
    flat = {}
    for path, value in jax.tree_util.tree_leaves_with_path(variables):
        names = [getattr(entry, "key", None) for entry in path]
        named = all(isinstance(name, str) and "/" not in name for name in names)
        array = np.ascontiguousarray(jax.device_get(value)).reshape(np.shape(value))
        if not named or array.dtype not in tensors.DTYPES:
            raise UserError(
                f"A variable needs to be an array of numbers in dictionaries whose "
                f"keys do not contain /, got {array.dtype} at "
                f"{jax.tree_util.keystr(path)}."
            )
        flat["/".join(map(str, names))] = array
    return flat


def _unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{name!r} is inside another variable")
        if last in inner:
            raise UserError(f"{name!r} is both an array and a group of arrays")
        inner[last] = value
    return nested


def _damaged(path: pathlib.Path, reason: str) -> str:
    return f"{path} is damaged: {reason}. Copy it again, or train again."
