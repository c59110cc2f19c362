"""segjax and the obvious Flax as contestants of throughput.py; see contestants.py."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_flax
from bench import Run

from segjax import losses, models, train
from segjax.compiler import compiler_options
from segjax.cpu_inference import faster_on_cpu


def segjax_run(task: Any) -> tuple[Run, dict[str, Any]]:
    """The library's own step, through the public functions that the loop uses.

    Args:
        task: A `contestants.Task`.
    """
    dtype = jnp.dtype(task.dtype)
    if task.network == "fcn":
        model: Any = models.FCN(
            task.classes,
            widths=task.widths,
            convs=task.convs,
            head_width=task.head_width,
            dtype=dtype,
        )
    elif task.network == "efficientnet_unet":
        model = models.UNet(
            task.classes,
            task.widths,
            norm=models.layers.batch_norm,
            encoder=models.encoders.efficientnet_lite0(),
            dtype=dtype,
        )
    else:
        paper = task.network == "paper_unet"
        model = models.UNet(
            task.classes,
            task.widths,
            norm=models.layers.no_norm if paper else models.layers.batch_norm,
            padding="valid" if paper else "same",
            dtype=dtype,
        )
    optimizer = optax.sgd(1e-3, momentum=0.9)
    batch = {
        "image": task.images(),
        "label": task.labels().astype(np.uint8),
        "weight": np.ones(task.batch, np.float32),
        "index": np.arange(task.batch, dtype=np.int32),
    }
    mesh = train.make_mesh()
    batch = next(train.to_devices([batch], mesh))
    shape = (task.size, task.size, 3)
    state = train.init_state(model, optimizer, seed=0, image_shape=shape)
    if task.mode == "infer":
        whole = train.make_forward(model)
        few = faster_on_cpu(whole)
        return _jax_inference(
            lambda variables, image: few(variables, {"image": image})[0],
            train.variables(state),
            batch["image"],
            counted=lambda variables, image: whole(variables, {"image": image})[0],
            compiler_options=compiler_options(),
        )
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = train.make_train_step(train.make_forward(model), objective, optimizer)
    compiled = train.jit_step(step, mesh)
    return _jax_training(compiled, state, (batch,), compiler_options())


def plain_run(task: Any) -> tuple[Run, dict[str, Any]]:
    """The obvious Flax form.

    Args:
        task: A `contestants.Task`.
    """
    dtype = jnp.dtype(task.dtype)
    if task.network == "fcn":
        model: Any = plain_flax.FCN(
            task.classes, task.widths, task.convs, task.head_width, dtype
        )
    else:
        paper = task.network == "paper_unet"
        padding = "VALID" if paper else "SAME"
        model = plain_flax.UNet(task.classes, task.widths, not paper, padding, dtype)
    image, label = jax.device_put((task.images(), task.labels()))
    key = jax.random.key(0)
    init = jax.jit(lambda key, x: model.init(key, x, train=False))
    variables = dict(init(key, jnp.zeros((1, *image.shape[1:]))))
    if task.mode == "infer":

        def apply(variables, image):
            return model.apply(variables, image / jnp.float32(255), train=False)

        return _jax_inference(apply, variables, image)
    params = variables.pop("params")
    optimizer = optax.sgd(1e-3, momentum=0.9)
    state = (params, variables, optimizer.init(params), key)
    step = plain_flax.make_train_step(model, optimizer)
    return _jax_training(step, state, (image, label))


def _jax_training(step, state, arguments, options=None) -> tuple[Run, dict[str, Any]]:
    compiled, facts = _compile(step, state, *arguments, options=options)
    kept = [state]

    def run(steps: int) -> None:
        for _ in range(steps):
            kept[0], out = compiled(kept[0], *arguments)
        jax.block_until_ready((kept[0], out))

    return run, facts


def _jax_inference(
    apply, variables, image, counted=None, **options
) -> tuple[Run, dict[str, Any]]:
    def infer(variables, image):
        return jnp.argmax(apply(variables, image), axis=-1)

    counted = None if counted is None else jax.jit(counted)
    program = jax.jit(infer, **options)
    compiled, facts = _compile(program, variables, image, counted=counted)

    def run(steps: int) -> None:
        for _ in range(steps):  # One after another: JAX would begin several at once.
            jax.block_until_ready(compiled(variables, image))

    return run, facts


def _compile(
    function, *arguments, options=None, counted=None
) -> tuple[Any, dict[str, Any]]:
    """Compiles, and counts the operations of `function` or, of a loop, of `counted`."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile(compiler_options=options)
    seconds = time.perf_counter() - start
    # Of a program for a TPU: on a CPU, XLA does not count what oneDNN computes. And not
    # of a loop, whose body XLA counts once.
    traced = (counted or function).trace(*arguments)
    analysis = traced.lower(lowering_platforms=("tpu",)).cost_analysis() or {}
    return compiled, {"compile_seconds": seconds, "flops": analysis.get("flops")}
