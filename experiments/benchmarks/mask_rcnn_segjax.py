"""Mask R-CNN by this library, through the functions that the loop uses.

Started by mask_rcnn.py; mask_rcnn_work.py says how it answers.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench import Run
from mask_rcnn_work import (
    CLASSES,
    IOU_THRESHOLD,
    NMS_SIZES,
    ROI_SIZES,
    Task,
    Work,
    contend,
    crowd,
    detections,
    features,
    regions,
    scene,
)

from segjax import interop, losses, models, ops, train
from segjax.compiler import compiler_options


def network(task: Task) -> Any:
    """The network of a task."""
    body = {"resnet18": models.resnet18, "resnet50": models.resnet50}[task.body]
    return models.MaskRCNN(
        body=body(frozen_stages=2),
        rpn=models.RPN(
            pre_nms_top_n_train=task.before_nms,
            pre_nms_top_n_test=task.before_nms,
            post_nms_top_n_train=task.proposals,
            post_nms_top_n_test=task.proposals,
        ),
        roi_heads=models.RoIHeads(
            CLASSES,
            batch_size_per_image=task.sampled,
            detections_per_img=task.detections,
        ),
        dtype=jnp.dtype(task.dtype),
    )


def imported(task: Task, model: Any) -> Any:
    """Variables of the network: those of torchvision's."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    with np.load(task.weights) as state:
        return interop.from_torchvision(dict(state), shapes, epsilon=1e-5)


def train_work(task: Task) -> Work:
    """The step as an experiment has it."""
    model, mesh = network(task), train.make_mesh()
    optimizer = optax.sgd(1e-5, momentum=0.9)
    state = train.init_state(
        model,
        optimizer,
        seed=0,
        image_shape=(task.height, task.width, 3),
        init_from=interop.init_from(imported(task, model)),
    )
    forward = train.make_forward(model, model_inputs=models.mask_rcnn_inputs)
    step = train.make_train_step(forward, losses.instance(), optimizer)
    batch = next(train.to_devices([scene(task)], mesh))
    compiled, facts = _compile(train.jit_step(step, mesh), state, batch)
    kept: list[Any] = [state, {}]

    def run(steps: int) -> None:
        for _ in range(steps):
            kept[:] = compiled(kept[0], batch)
        jax.block_until_ready(kept)

    def measured() -> dict[str, float]:
        masks = task.sampled * model.roi_heads.positive_fraction
        return {"loss": float(kept[1]["loss"]), "masks an image": int(masks)}

    return Work({"train": run}, facts, measured)


def infer_work(task: Task) -> Work:
    """Detections on the device, and with their masks pasted on the host."""
    model = network(task)
    batch = {k: v for k, v in scene(task).items() if k in ("image", "size")}
    variables, batch = jax.device_put((imported(task, model), batch))

    def detect(variables, batch):
        image = ops.to_float(batch["image"])
        return model.apply(variables, image, size=batch["size"], train=False)

    compiled, facts = _compile(jitted(detect), variables, batch)

    def run_and_paste(steps: int) -> None:
        for _ in range(steps):
            models.instances(compiled(variables, batch))

    def measured() -> dict[str, float]:
        found = models.instances(compiled(variables, batch))
        return detections([x["scores"] for x in found])

    return Work(
        {
            "infer": _repeated(compiled, variables, batch),
            "infer and paste": run_and_paste,
        },
        facts,
        measured,
    )


jitted = functools.partial(jax.jit, compiler_options=compiler_options())
"""As `segjax predict` compiles."""

roi_align = functools.partial(
    ops.roi_align,
    output_size=(7, 7),
    spatial_scale=1 / 4,
    sampling_ratio=2,
    aligned=False,
)


def roi_align_gradient(table, boxes, gradient):
    """The regions' product with a gradient, and what goes back to the table."""

    def product(table):
        return jnp.vdot(roi_align(table, boxes), gradient)

    return jax.value_and_grad(product)(table)


def operations_work(task: Task) -> Work:
    """NMS and ROIAlign alone, in float32."""
    runs, values = {}, {}

    def add(name: str, function: Callable, *arguments: Any) -> None:
        arguments = jax.device_put(arguments)
        compiled = jitted(function).lower(*arguments).compile()
        runs[name] = _repeated(compiled, *arguments)
        last = jax.tree.leaves(compiled(*arguments))[-1]  # Of NMS, what is object_mask.
        values[name] = float(jnp.sum(jnp.abs(last.astype(jnp.float32))))

    for number in NMS_SIZES:
        nms = functools.partial(
            ops.nms, iou_threshold=IOU_THRESHOLD, max_outputs=number
        )
        add(f"nms {number}", nms, *crowd(number), np.ones(number, bool))
    table, gradient = features(task)
    for number in ROI_SIZES:
        boxes = regions(number, task)
        add(f"roi_align {number}", roi_align, table, boxes)
        add(
            f"roi_align grad {number}",
            roi_align_gradient,
            table,
            boxes,
            gradient(number),
        )
    return Work(runs, {}, lambda: values)


def _repeated(compiled: Callable, *arguments: Any) -> Run:
    """Runs one call after the other; a CPU would begin several at once."""
    one_by_one = jax.default_backend() == "cpu"

    def run(steps: int) -> None:
        for _ in range(steps):
            found = compiled(*arguments)
            if one_by_one:
                jax.block_until_ready(found)
        jax.block_until_ready(found)

    return run


def _compile(function: Any, *arguments: Any) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile(compiler_options=compiler_options())
    return compiled, {"compile_seconds": time.perf_counter() - start}


if __name__ == "__main__":
    contend({"train": train_work, "infer": infer_work, "operations": operations_work})
