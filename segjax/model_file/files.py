"""`model.json` and its variables: written so that a kill leaves a whole model."""

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
from segjax.files import limits, reading, tensors, writing
from segjax.forward import Forward
from segjax.model_file import schema
from segjax.model_file.encoding import NotSerializableError, decode, encode
from segjax.typing import PyTree

MODEL_JSON = "model.json"
FORMAT = 1
"""Of `model.json`; goes up when a reader of the one before would misread it."""

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
    """Writes a model; the one that the folder had stays whole until this one is.

    The variables come first, under a name of their digest, then `model.json`, which
    names them, then older variables go. Each file appears at once and complete.

    Args:
        folder: Made if it is not there.
        forward: The network with its preprocessing. Parts that are not segjax's own
            become null, and `needs_code` says which was the first.
        variables: Nested dictionaries of arrays, on any device.
        facts: JSON values: `classes` names, `colors` "#rrggbb" a class (optional),
            `image` {"channels", "dtype", "low", "high"}, `task` "semantic", "instance"
            or "multilabel", `multiple` and `max_shapes` for prediction, `step`, and
            what else is worth keeping.

    Raises:
        ValueError: If a fact has the name of something that this function writes, or a
            variable cannot be stored.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(_flat(variables))
    digest = hashlib.sha256(data).hexdigest()
    name = f"variables-{digest[:12]}.safetensors"
    description = {
        "format": FORMAT,
        "segjax": segjax.__version__,
        **_encoded(forward),
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
    """Reads a model's description and its variables, and checks these by their digest.

    Args:
        folder: That `write` was given. It may be written to at the same time.

    Returns:
        (what `model.json` holds, nested dictionaries of numpy arrays).

    Raises:
        ValueError: If a file is missing, damaged or of a newer segjax.
    """
    folder = pathlib.Path(folder)
    description = _description(folder)
    while True:
        name = description["variables"]["name"]
        try:
            data = reading.read_bytes(folder / name, max_bytes=_MAX_BYTES)
            break
        except FileNotFoundError:
            # A model written since `model.json` was read has taken its place.
            description = _description(folder)
            if description["variables"]["name"] == name:
                raise ValueError(
                    f"{folder / name} is missing, and {MODEL_JSON} names it. Copy the whole "
                    f"folder, or train again."
                ) from None
    if hashlib.sha256(data).hexdigest() != description["variables"]["sha256"]:
        raise ValueError(
            _damaged(folder / name, "its SHA-256 is not that in model.json")
        )
    try:
        return description, _nested(tensors.parse(data))
    except ValueError as error:
        raise ValueError(_damaged(folder / name, str(error))) from error


def build_forward(description: Mapping[str, Any]) -> Forward:
    """The network of a description, with what goes before it.

    Raises:
        NotSerializableError: If a part of it is not segjax's own: `needs_code` says which.
        ValueError: If it names what this segjax does not have, or what misfits.
    """
    if description["needs_code"] is not None:
        raise NotSerializableError(description["needs_code"])
    try:
        parts = [decode(description[name]) for name in _PARTS]
        return Forward(*parts)
    except ValueError:
        raise
    except Exception as error:  # What constructors raise of attributes that misfit.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"a part of the model cannot be built ({reason}).") from error


def _encoded(forward: Forward) -> dict[str, Any]:
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
        raise ValueError(f"facts of a model need {', '.join(missing)}, got none.")
    if facts["task"] not in ("semantic", "instance", "multilabel"):
        raise ValueError(
            f'A task needs to be "semantic", "instance" or "multilabel", got '
            f"{facts['task']!r}."
        )
    taken = sorted(description.keys() & facts.keys())
    if taken:
        raise ValueError(
            f"facts of a model need names of their own, got {', '.join(taken)}."
        )


def _description(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / MODEL_JSON
    try:
        content = reading.read_bytes(path, max_bytes=limits.TEXT_BYTES)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no model: {MODEL_JSON} is missing. Give a folder that segjax "
            f"train has written since its first checkpoint."
        ) from None
    try:
        description = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(_damaged(path, "it is not JSON")) from None
    version = description.get("format") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise ValueError(_damaged(path, "it has no format number"))
    if version > FORMAT:
        raise ValueError(
            f"{path} has format {version}, this segjax reads up to {FORMAT}. Update "
            f"segjax to {description.get('segjax', 'a newer version')}."
        )
    missing = {"variables", "needs_code", *_FACTS, *_PARTS} - description.keys()
    if missing:
        raise ValueError(_damaged(path, f"it has no {', '.join(sorted(missing))}"))
    wrong = schema.first_fault(description)
    if wrong:
        raise ValueError(_damaged(path, wrong))
    return description


def _flat(variables: PyTree) -> dict[str, np.ndarray]:
    """Nested names joined by "/"; arrays on the host."""
    flat = {}
    for path, value in jax.tree_util.tree_leaves_with_path(variables):
        names = [getattr(entry, "key", None) for entry in path]
        named = all(isinstance(name, str) and "/" not in name for name in names)
        array = np.ascontiguousarray(jax.device_get(value)).reshape(np.shape(value))
        if not named or array.dtype not in tensors.DTYPES:
            raise ValueError(
                f"A variable needs to be an array of numbers in dictionaries whose "
                f"keys have no /, got {array.dtype} at {jax.tree_util.keystr(path)}."
            )
        flat["/".join(map(str, names))] = array
    return flat


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{name!r} is inside of another variable")
        if last in inner:
            raise ValueError(f"{name!r} is an array and a folder of arrays")
        inner[last] = value
    return nested


def _damaged(path: pathlib.Path, reason: str) -> str:
    return f"{path} is damaged: {reason}. Copy it again, or train again."
