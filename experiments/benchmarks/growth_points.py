"""What growth.py measures at one size: steps, losses and metrics, ready to run."""

import tracemalloc
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from growth_sizes import Point, Small
from losses import scene as blobs
from losses import step_of
from mask_rcnn_work import CLASSES, Task, scene

from segjax import losses, metrics, models, train
from segjax.compiler import compiler_options


def unet_step(small: Small) -> Point:
    """A training step, through the public functions that the loop uses."""
    model, batch = _unet(small)
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    return _training(objective, batch, train.make_forward(model))


def unet_evaluation(small: Small) -> Point:
    """Counts of an evaluation batch, on the device."""
    model, batch = _unet(small)
    names = tuple(f"class {i}" for i in range(small.classes))
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = train.make_eval_step(
        train.make_forward(model), objective, metrics.semantic(names)
    )
    state = train.init_state(
        model, optax.sgd(0.0), seed=0, image_shape=batch["image"].shape[1:]
    )
    return _compiled(step, train.variables(state), batch)


def mask_rcnn_step(small: Small) -> Point:
    """A training step of the network of digits_mask_rcnn.py, on larger images."""
    norm, regions = models.layers.group_norm, small.regions
    model = models.MaskRCNN(
        body=models.resnet18(width=16, norm=norm),
        fpn=models.FPN(features=64, norm=norm),
        rpn=models.RPN(
            anchor_sizes=((14,), (20,), (28,), (40,), (56,)),
            pre_nms_top_n_train=2 * regions,
            post_nms_top_n_train=2 * regions,
            batch_size_per_image=2 * regions,
        ),
        roi_heads=models.RoIHeads(
            CLASSES,
            box_width=128,
            mask_convs=2,
            mask_width=64,
            batch_size_per_image=regions,
        ),
        dtype=jnp.dtype(small.dtype),
    )
    batch = scene(_task(small))
    forward = train.make_forward(model, model_inputs=models.mask_rcnn_inputs)
    return _training(losses.instance(), batch, forward)


def detection_metric(small: Small) -> Point:
    """COCO's average precision and matched objects of one batch, on the host."""
    batch = scene(_task(small))
    rng = np.random.default_rng(0)
    batch["valid"] = np.ones(batch["masks"].shape[:1] + batch["masks"].shape[2:], bool)
    shape = batch["object_mask"].shape
    found = types.SimpleNamespace(
        boxes=batch["boxes"] + rng.normal(size=(*shape, 4)).astype(np.float32),
        scores=rng.random(shape).astype(np.float32),
        classes=batch["classes"],
        object_mask=batch["object_mask"],
        masks=np.full((*shape, 28, 28), 0.9, np.float32),
        aligned=False,
    )
    metric = metrics.detections(tuple(f"class {i}" for i in range(CLASSES)))

    def run() -> None:
        metric(found, batch).compute()

    run()
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Point(run, peak)


def loss_step(small: Small, *, loss: Callable) -> Point:
    """Value and gradient of a loss, on regions that grow with the image."""
    step = step_of(loss, blobs(_logits_shape(small)))
    return Point(lambda: jax.block_until_ready(step()), _bytes(step.func))


def metric_step(small: Small, *, metric: Callable) -> Point:
    """What a metric has of one batch, on regions that grow with the image."""
    logits, labels, valid = blobs(_logits_shape(small))
    names = tuple(f"class {i}" for i in range(small.classes))
    batch = {"label": labels, "valid": valid, **_rows(small.batch)}
    return _compiled(metric(names), logits, batch)


def _unet(small: Small) -> tuple[Any, dict[str, np.ndarray]]:
    rng, shape = np.random.default_rng(0), (small.batch, small.size, small.size)
    model = models.UNet(
        small.classes,
        (small.width, 2 * small.width, 4 * small.width),
        norm=models.layers.batch_norm,
        dtype=jnp.dtype(small.dtype),
    )
    return model, {
        "image": rng.integers(0, 256, (*shape, 3)).astype(np.uint8),
        "label": rng.integers(0, small.classes, shape).astype(np.int32),
        "valid": np.ones(shape, bool),
        **_rows(small.batch),
    }


def _rows(count: int) -> dict[str, np.ndarray]:
    return {
        "weight": np.ones(count, np.float32),
        "index": np.arange(count, dtype=np.int32),
    }


def _task(small: Small) -> Task:
    side = 2 * small.size
    return Task(batch=small.batch, height=side, width=side, objects=small.objects)


def _logits_shape(small: Small) -> tuple[int, int, int, int]:
    return small.batch, small.size, small.size, small.classes


def _training(objective: Any, batch: Any, forward: train.Forward) -> Point:
    optimizer, mesh = optax.sgd(1e-3, momentum=0.9), _mesh()
    batch = next(train.to_devices([batch], mesh))
    shape: Sequence[int] = batch["image"].shape[1:]
    state = train.init_state(forward.model, optimizer, seed=0, image_shape=shape)
    step = train.make_train_step(forward, objective, optimizer)
    compiled = train.jit_step(step, mesh).lower(state, batch).compile()
    kept = [state]

    def run() -> None:
        kept[0], scalars = compiled(kept[0], batch)
        jax.block_until_ready((kept[0], scalars))

    return Point(run, _bytes(compiled))


def _compiled(function: Callable, *arguments: Any) -> Point:
    arguments = jax.device_put(arguments)
    compiled = (
        jax.jit(function, compiler_options=compiler_options())
        .lower(*arguments)
        .compile()
    )
    return Point(
        lambda: jax.block_until_ready(jax.tree.leaves(compiled(*arguments))),
        _bytes(compiled),
    )


def _mesh() -> Any:
    return train.make_mesh(jax.devices()[:1])


def _bytes(compiled: Any) -> int:
    account = compiled.memory_analysis()
    return (
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        + account.temp_size_in_bytes
        - account.alias_size_in_bytes
    )
