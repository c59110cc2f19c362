"""PyTorch as a contestant of throughput.py; see contestants.py."""

import importlib
import pathlib
import sys
from typing import Any

import bench
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
import torch_networks


def torch_run(task: Any) -> tuple[bench.Run, dict[str, Any]]:
    """PyTorch, channels last, autocast below float32; compiled if so named.

    Args:
        task: A `contestants.Task`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    paper = task.network == "paper_unet"
    if task.network == "fcn":
        net: Any = torch_networks.FCN(
            task.classes, task.widths, task.convs, task.head_width
        )
    elif task.network == "efficientnet_unet":
        net = _smp_unet(task)
    else:
        net = torch_networks.UNet(
            task.classes, task.widths, norm=not paper, padding=0 if paper else 1
        )
    layout = torch.channels_last
    net = net.to(device).to(memory_format=layout).train(task.mode == "train")
    image = torch.from_numpy(task.images()).permute(0, 3, 1, 2).to(device)
    image = image.contiguous(memory_format=layout)
    label = torch.from_numpy(task.labels()).long().to(device)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
    low = torch.autocast(device, torch.bfloat16, enabled=task.dtype == "bfloat16")
    forward = torch.compile(net) if task.system == "torch-compile" else net

    def train_step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with low:
            logits = forward(image.float() / 255)
            rows, columns = logits.shape[2:]
            top, left = (label.shape[1] - rows) // 2, (label.shape[2] - columns) // 2
            target = label[:, top : top + rows, left : left + columns]
            loss = torch.nn.functional.cross_entropy(logits.float(), target)
        loss.backward()
        optimizer.step()
        return loss

    @torch.inference_mode()
    def infer_step() -> torch.Tensor:
        with low:
            return forward(image.float() / 255).argmax(1)

    step = train_step if task.mode == "train" else infer_step

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run, {"compile_seconds": bench.seconds(lambda: run(1)), "flops": None}


def _smp_unet(task: Any) -> torch.nn.Module:
    """segmentation_models.pytorch's U-Net; its decoder upsamples by repetition."""
    importlib.import_module("torchvision_cpu")  # timm imports torchvision.
    smp = importlib.import_module("segmentation_models_pytorch")
    return smp.Unet(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        decoder_channels=task.widths[::-1],
        classes=task.classes,
    )
