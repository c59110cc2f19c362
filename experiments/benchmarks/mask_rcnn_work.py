"""What both systems of mask_rcnn.py work on, and how they answer it."""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import bench
import numpy as np
from bench import Run

CLASSES = 91


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        system: segjax or torchvision.
        body: resnet18 or resnet50.
        mode: train, infer, or operations: NMS and ROIAlign alone.
        batch: Images.
        height: Of an image in pixels, a multiple of 32; as its width.
        width: Of features ROIAlign reads a map at a stride of 4.
        proposals: After NMS, for each image.
        before_nms: Anchors of each level of the pyramid that go into it.
        sampled: Proposals for the losses, for each image.
        detections: The most of an image.
        objects: Of each image; there are slots for twice as many.
        dtype: float32 or bfloat16, of the networks.
        weights: File with the state dict of both, as .npz.
    """

    system: str = ""
    body: str = "resnet50"
    mode: str = "train"
    batch: int = 1
    height: int = 128
    width: int = 128
    proposals: int = 64
    before_nms: int = 256
    sampled: int = 64
    detections: int = 20
    objects: int = 4
    dtype: str = "float32"
    weights: str = ""


def cpu_tasks(batch: int) -> list[Task]:
    """Small images and few proposals, which torchvision's slow operations can do."""
    tasks = [
        Task(body=body, mode=mode, batch=batch)
        for body in ("resnet50", "resnet18")
        for mode in ("train", "infer")
    ]
    return [*tasks, Task(mode="operations", height=256, width=256)]


def gpu_tasks(batch: int) -> list[Task]:
    """ResNet-50-FPN at 800x1344, with torchvision's numbers of everything."""
    training = Task(
        mode="train",
        batch=batch,
        height=800,
        width=1344,
        proposals=2_000,
        before_nms=2_000,
        sampled=512,
        detections=100,
        objects=20,
        dtype="bfloat16",
    )
    detecting = dataclasses.replace(
        training, mode="infer", proposals=1_000, before_nms=1_000
    )
    return [
        training,
        detecting,
        dataclasses.replace(training, mode="operations", dtype="float32"),
    ]


@dataclasses.dataclass(frozen=True)
class Work:
    """What a system does on a task.

    Attributes:
        runs: By name; each runs a number of steps and waits for the last.
        facts: Told first.
        measured: By which both systems are compared, called at the end.
    """

    runs: dict[str, Run]
    facts: dict[str, Any]
    measured: Callable[[], dict[str, float]]


def scene(task: Task) -> dict[str, np.ndarray]:
    """A batch as the pipeline yields it: noise, in which ellipses are objects."""
    rng = np.random.default_rng(0)
    slots = (task.batch, 2 * task.objects)
    extent = np.array([task.width, task.height], np.float32)
    side = rng.uniform(1 / 8, 1 / 2, (*slots, 2)) * extent
    low = rng.uniform(size=(*slots, 2)) * (extent - side)
    object_mask = np.broadcast_to(np.arange(slots[1]) < task.objects, slots)
    boxes = np.concatenate([low, low + side], -1) * object_mask[..., None]
    masks = np.zeros((*slots, task.height, task.width), bool)
    y, x = np.ogrid[: task.height, : task.width]
    for slot in zip(*np.nonzero(object_mask), strict=True):
        (x0, y0), (wide, high) = low[slot], side[slot]
        across, down = (x + 0.5 - x0) / wide - 0.5, (y + 0.5 - y0) / high - 0.5
        masks[slot] = across**2 + down**2 <= 0.25
    shape = (task.batch, task.height, task.width, 3)
    return {
        "image": rng.integers(0, 256, shape).astype(np.uint8),
        "size": np.tile(np.int32([task.height, task.width]), (task.batch, 1)),
        "boxes": boxes.astype(np.float32),
        "classes": rng.integers(1, CLASSES, slots).astype(np.int32) * object_mask,
        "masks": masks,
        "object_mask": object_mask.copy(),
        "weight": np.ones(task.batch, np.float32),
        "index": np.arange(task.batch, dtype=np.int32),
    }


def crowd(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N, 4] and their scores: ten or so around each of N / 10 places."""
    rng = np.random.default_rng(number)
    place = rng.integers(0, number // 10, number)
    low = rng.uniform(0, 1_000, (number // 10, 2))[place]
    side = rng.uniform(20, 200, (number // 10, 2))[place]
    boxes = np.concatenate([low, low + side], 1)
    boxes += 0.05 * np.tile(side, 2) * rng.normal(size=boxes.shape)
    return boxes.astype(np.float32), rng.random(number).astype(np.float32)


def regions(number: int, task: Task) -> np.ndarray:
    """Boxes [R, 4] in an image."""
    rng = np.random.default_rng(number)
    extent = np.array([task.width, task.height])
    ends = np.sort(rng.uniform(size=(number, 2, 2)), axis=1) * extent
    return ends.reshape(number, 4).astype(np.float32)


def features(task: Task) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """A map [H / 4, W / 4, 256], and gradients [R, 7, 7, 256] to send back to it."""
    rng = np.random.default_rng(1)
    shape = (task.height // 4, task.width // 4, 256)

    def gradient(number: int) -> np.ndarray:
        made = np.random.default_rng(2).normal(size=(number, 7, 7, shape[-1]))
        return made.astype(np.float32)

    return rng.normal(size=shape).astype(np.float32), gradient


NMS_SIZES, ROI_SIZES = (1_000, 2_000, 5_000), (128, 512)
IOU_THRESHOLD = 0.7


def detections(scores: list[np.ndarray]) -> dict[str, float]:
    """Figures of the scores of each image's detections."""
    joined = np.concatenate(scores)
    return {"detections": len(joined), "sum of scores": float(joined.sum())}


def contend(works: dict[str, Callable[[Task], Work]]) -> None:
    """Runs a process that answers mask_rcnn.py.

    The first argument is a task as JSON. The first line printed is facts, with the
    names of what there is to run; then `[name, steps]` on standard input is answered
    by seconds a step, and "end" by the peak of memory and by measured that tell whether
    systems did the same.

    Args:
        works: By mode.
    """
    bench.prepare_process()
    task = Task(**json.loads(sys.argv[1]))
    work = works[task.mode](task)
    for run in work.runs.values():
        run(1)
    bench.forget_peak()

    def reply(request: Any) -> Any:
        if request == "end":
            peak = bench.peak_bytes(task.system)
            return {"peak_bytes": peak, "measured": work.measured()}
        name, steps = request
        return bench.seconds(lambda: work.runs[name](steps)) / steps

    bench.answer({**work.facts, "runs": list(work.runs)}, reply)
