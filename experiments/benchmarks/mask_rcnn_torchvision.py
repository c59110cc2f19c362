"""Mask R-CNN by torchvision, at its strongest setting: channels last and autocast.

Started by mask_rcnn.py; mask_rcnn_work.py says how it answers. cuDNN does not try its
algorithms out, as the number of masks changes from step to step, and with it shapes.
"""

from collections.abc import Callable
from typing import Any

import bench
import torch
from mask_rcnn_work import (
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
from torchvision_network import COMPILED_OPERATIONS, DEVICE, loaded, torchvision


def inputs(task: Task) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images uint8 [3, H, W] and their objects, on the device."""
    batch = {name: torch.from_numpy(x).to(DEVICE) for name, x in scene(task).items()}
    objects = {
        "boxes": batch["boxes"],
        "labels": batch["classes"].long(),
        "masks": batch["masks"].byte(),
    }
    targets = [
        {name: x[i][object_mask] for name, x in objects.items()}
        for i, object_mask in enumerate(batch["object_mask"])
    ]
    return list(batch["image"].permute(0, 3, 1, 2)), targets


def lowered(task: Task) -> Any:
    """Autocast below float32."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=task.dtype == "bfloat16")


def repeated(step: Callable[[], Any]) -> Callable[[int], None]:
    """Runs a step many times, and waits."""

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def train_work(task: Task) -> Work:
    """Loss, gradient and SGD."""
    made = loaded(task).train()
    images, targets = inputs(task)
    learned = [p for p in made.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, 1e-5, momentum=0.9)
    last: dict[str, Any] = {}

    def count_masks(module, arguments) -> None:
        last["masks"] = sum(len(boxes) for boxes in arguments[1])

    made.roi_heads.mask_roi_pool.register_forward_pre_hook(count_masks)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with lowered(task):
            terms = made([image.float() / 255 for image in images], targets)
            last["loss"] = sum(terms.values())
        last["loss"].backward()
        optimizer.step()

    def measured() -> dict[str, float]:
        masks = last["masks"] / task.batch
        return {"loss": last["loss"].item(), "masks an image": masks}

    run = repeated(step)
    return Work({"train": run}, _first(run), measured)


def infer_work(task: Task) -> Work:
    """Detections, and with their masks pasted, which torchvision does on the device."""
    made = loaded(task).eval()
    images, _ = inputs(task)
    paste = made.transform.postprocess
    last: list[Any] = []

    @torch.inference_mode()
    def step(postprocess: Callable) -> None:
        made.transform.postprocess = postprocess
        with lowered(task):
            last[:] = made([image.float() / 255 for image in images])

    def measured() -> dict[str, float]:
        return detections([x["scores"].float().cpu().numpy() for x in last])

    run = repeated(lambda: step(lambda result, *sizes: result))
    runs = {"infer": run, "infer and paste": repeated(lambda: step(paste))}
    return Work(runs, _first(run), measured)


def operations_work(task: Task) -> Work:
    """NMS and ROIAlign alone, in float32."""
    runs, values = {}, {}

    def add(name: str, step: Callable[[], torch.Tensor]) -> None:
        runs[name] = repeated(step)
        values[name] = step().abs().sum().item()

    for number in NMS_SIZES:
        boxes, scores = (torch.from_numpy(x).to(DEVICE) for x in crowd(number))

        def nms(boxes=boxes, scores=scores) -> torch.Tensor:
            keep = torchvision.ops.nms(boxes, scores, IOU_THRESHOLD)
            return torch.tensor(len(keep))

        add(f"nms {number}", nms)
    table, gradient = features(task)
    table = torch.from_numpy(table).permute(2, 0, 1)[None].contiguous().to(DEVICE)
    for number in ROI_SIZES:
        boxes = torch.from_numpy(regions(number, task)).to(DEVICE)
        back = torch.from_numpy(gradient(number)).permute(0, 3, 1, 2).to(DEVICE)

        def forward(table=table, boxes=boxes) -> torch.Tensor:
            return torchvision.ops.roi_align(table, [boxes], (7, 7), 1 / 4, 2)

        def backward(forward=forward, back=back) -> torch.Tensor:
            leaf = table.detach().requires_grad_()
            (found,) = torch.autograd.grad(forward(leaf), leaf, back)
            return found

        add(f"roi_align {number}", forward)
        add(f"roi_align grad {number}", backward)
    return Work(runs, _facts(), lambda: values)


def _first(run: Callable[[int], None]) -> dict[str, Any]:
    return {"compile_seconds": bench.seconds(lambda: run(1)), **_facts()}


def _facts() -> dict[str, Any]:
    return {
        "compiled_operations": COMPILED_OPERATIONS,
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


if __name__ == "__main__":
    contend({"train": train_work, "infer": infer_work, "operations": operations_work})
