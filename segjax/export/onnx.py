"""Writing a semantic model as an ONNX file, checked against onnxruntime."""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import inference, ops, optional
from segjax.errors import UserError
from segjax.export.program import meanings
from segjax.files import writing
from segjax.typing import Array

TOLERANCE = 1e-4
"""Largest difference of a probability between JAX and onnxruntime."""
_OUTPUTS = ("probabilities", "labels")


def save_onnx(
    model: inference.Model,
    path: str | os.PathLike,
    *,
    size: Sequence[int],
    batch_size: int = 1,
) -> float:
    """Writes a model as an ONNX file, with jax2onnx, and checks it.

    The file has preprocessing and network, one input `image` [B, H, W, K] as stored,
    and the outputs `probabilities` float32 [B, H, W, C] and `labels`, as
    `segjax.export.save` describes them. Before it is written, onnxruntime runs it on
    three batches, and the results are compared with those of JAX.

    Args:
        model: Loaded by `segjax.load`; not a detector, and without a margin.
        path: The file; replaced atomically.
        size: (height, width) of the images, multiples of the model's `multiple`, since
            images are not padded.
        batch_size: Images per call.

    Returns:
        The largest difference of a probability that was found.

    Raises:
        optional.MissingPackageError: If jax2onnx or onnxruntime is not installed.
        ValueError: If the model or the size cannot be exported, or the difference is
            above 1e-4.
    """
    jax2onnx = optional.require("jax2onnx", extra="onnx", purpose="ONNX files")
    runtime = optional.require("onnxruntime", extra="onnx", purpose="ONNX files")
    shape = _shape(model, size, batch_size)
    program, about = _program(model), model.description
    try:
        # jax2onnx prints, and its convolutions promote ranks.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            jax.numpy_rank_promotion("allow"),
        ):
            made = jax2onnx.to_onnx(
                program,
                [jax.ShapeDtypeStruct(shape, about["image"]["dtype"])],
                model_name="segjax",
                input_names=["image"],
                output_names=list(_OUTPUTS),
            )
        content = _with_metadata(made, model)
        session = runtime.InferenceSession(content)
    except Exception as error:  # Of jax2onnx, onnx and onnxruntime.
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise UserError(
            f"{type(model.module).__name__} cannot be converted to ONNX "
            f"({type(error).__name__}: {reason}). Export it without --format onnx."
        ) from error
    worst = _worst(jax.jit(program), session, shape, about["image"])
    if not worst <= TOLERANCE:
        raise UserError(
            f"The ONNX file of {type(model.module).__name__} would be wrong: "
            f"probabilities differ from JAX's by {worst:.2g}, needed at most "
            f"{TOLERANCE:g}. It is not written; export without --format onnx."
        )
    writing.write_bytes(pathlib.Path(path), content)
    return worst


def _shape(
    model: inference.Model, size: Sequence[int], batch_size: int
) -> tuple[int, ...]:
    about, multiple = model.description, model.description["multiple"]
    if about["task"] == "instance" or model.forward.margin:
        raise UserError(
            "ONNX files are for semantic and multilabel models that do not crop their "
            "border. Export this one without --format onnx."
        )
    if any(n < 1 or n % multiple for n in size) or len(size) != 2 or batch_size < 1:
        raise UserError(
            f"An ONNX file needs --size HEIGHT WIDTH of multiples of {multiple} and a "
            f"batch size of at least 1, got {list(size)} and {batch_size}."
        )
    return (batch_size, *size, about["image"]["channels"])


def _program(model: inference.Model) -> Any:
    multilabel = model.description["task"] == "multilabel"

    def program(image: Array) -> tuple[Array, Array]:
        constants = jax.tree.map(jnp.asarray, model.variables)
        logits, _ = model.forward(constants, {"image": image})
        probs = jax.nn.sigmoid(logits) if multilabel else jax.nn.softmax(logits)
        dtype = jnp.uint8 if logits.shape[-1] <= 255 else jnp.uint16
        labels = jnp.argmax(probs, axis=-1).astype(dtype)
        if multilabel:
            sure = jnp.max(probs, axis=-1) >= 0.5
            labels = jnp.where(
                sure, labels, jnp.asarray(ops.ignore_index(dtype), dtype)
            )
        return probs, labels

    return program


def _with_metadata(made: Any, model: inference.Model) -> bytes:
    about = model.description
    facts = {
        "task": about["task"],
        "classes": json.dumps(list(model.classes)),
        "palette": json.dumps(model.palette.tolist()),
        "image": json.dumps(about["image"]),
        **{name: meanings(about["task"])[name] for name in _OUTPUTS},
    }
    for key, value in facts.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made.SerializeToString()


def _worst(program: Any, session: Any, shape: Sequence[int], about: Any) -> float:
    """The largest difference of a probability; infinite where labels differ for it."""
    rng, dtype = np.random.default_rng(0), np.dtype(about["dtype"])
    high = np.iinfo(dtype).max if dtype.kind == "u" else 1
    noise = (rng.random(shape) * high).astype(dtype)
    ramp = np.broadcast_to(np.linspace(0, high, shape[2])[:, None], shape)
    differences = []
    for image in (noise, ramp.astype(dtype), np.zeros(shape, dtype)):
        want, labels = map(np.asarray, program(image))
        got, ids = session.run(list(_OUTPUTS), {"image": image})
        differences.append(
            np.abs(got - want).max() if got.shape == want.shape else np.inf
        )
        best = np.sort(want, axis=-1)
        clear = best[..., -1] - best[..., :-1].max(-1, initial=-1) > 2 * TOLERANCE
        clear &= np.abs(best[..., -1] - 0.5) > TOLERANCE
        if ids.dtype != labels.dtype or (ids != labels)[clear].any():
            return float("inf")
    return float(max(differences))
