"""What growth.py lets grow: steps, losses and metrics at a size that doubles."""

import dataclasses
import functools
import tracemalloc
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from losses import scene as blobs
from losses import step_of
from mask_rcnn_work import CLASSES, Task, scene

from segjax import losses, metrics, models, train

LOSSES = (
    losses.cross_entropy,
    losses.soft_dice,
    losses.lovasz_softmax,
    losses.boundary,
    losses.soft_cldice,
)
METRICS = (metrics.semantic, metrics.surface, metrics.boundary_iou)


@dataclasses.dataclass(frozen=True)
class Point:
    """Something of one size, ready to run.

    Attributes:
        run: Does it once, and waits.
        bytes: Of arguments, results and all between, less what shares memory: XLA's
            own account of the program, or what NumPy held at most.
    """

    run: Callable[[], Any]
    bytes: int


@dataclasses.dataclass(frozen=True)
class Axis:
    """What grows, and as which power of it time and memory may grow.

    Attributes:
        what: That is measured.
        over: That grows.
        time: Exponent that the mathematics has.
        memory: The same of memory.
        values: Doublings of `over`.
        make: A point at a value.
    """

    what: str
    over: str
    time: float
    memory: float
    values: tuple[int, ...]
    make: Callable[[int], Point]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small:
    """Where the other quantities stand while one grows.

    Attributes:
        size: Side of an image in pixels.
        batch: Images.
        width: Channels of the U-Net's finest scale, of three.
        classes: C.
        objects: Of each image, for Mask R-CNN, whose images are twice as wide.
        regions: Proposals of each image, of which as many are learned.
        dtype: Of the networks.
    """

    size: int = 64
    batch: int = 2
    width: int = 8
    classes: int = 4
    objects: int = 16
    regions: int = 16
    dtype: str = "float32"


CPU = Small()
GPU = Small(
    size=256, batch=8, width=32, classes=8, objects=32, regions=64, dtype="bfloat16"
)


def axes(small: Small) -> Iterator[Axis]:
    """All that is measured."""

    def grown(name: str, make: Callable[[Small], Point]) -> Callable[[int], Point]:
        return lambda value: make(dataclasses.replace(small, **{name: value}))

    def doubled(name: str, times: int, first: int = 1) -> tuple[int, ...]:
        return tuple(first * getattr(small, name) * 2**i for i in range(times))

    step, detector = "U-Net training step", "Mask R-CNN training step"
    unet = functools.partial(grown, make=unet_step)
    rcnn = functools.partial(grown, make=mask_rcnn_step)
    yield Axis(step, "image side", 2, 2, doubled("size", 4), unet("size"))
    batches, many = tuple(2**i for i in range(5)), doubled("classes", 5, first=4)
    yield Axis(step, "batch", 1, 1, batches, unet("batch"))
    yield Axis(step, "width", 2, 2, doubled("width", 4), unet("width"))
    yield Axis(step, "classes", 1, 1, many, unet("classes"))
    yield Axis(detector, "objects", 1, 1, doubled("objects", 5), rcnn("objects"))
    # NMS compares each box that it keeps with all others.
    yield Axis(detector, "regions", 2, 1, doubled("regions", 4), rcnn("regions"))
    counting = grown("classes", unet_evaluation)
    yield Axis("U-Net evaluation", "classes", 1, 1, many, counting)
    # IoU of each detection with each object of its class.
    matching = grown("objects", detection_metric)
    yield Axis("metrics.detections", "objects", 2, 1, doubled("objects", 4), matching)
    sides = doubled("size", 4)
    for loss in LOSSES:
        one = grown("size", functools.partial(loss_step, loss=loss))
        yield Axis(f"losses.{loss.__name__}", "image side", 2, 2, sides, one)
    for metric in METRICS:
        one = grown("size", functools.partial(metric_step, metric=metric))
        yield Axis(f"metrics.{metric.__name__}", "image side", 2, 2, sides, one)


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
    compiled = jax.jit(function).lower(*arguments).compile()
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
