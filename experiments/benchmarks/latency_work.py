"""One system of latency.py: an image in, a mask out, timed call by call.

python experiments/benchmarks/latency_work.py '{"system": "segjax", ...}'
"""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import bench
import numpy as np

CLASSES = 11
UNET, FCN = (16, 32, 64, 128, 256), (32, 64, 128, 256, 256)
CONVS, HEAD_WIDTH = (2, 2, 3, 3, 3), 2048
Call = Callable[[np.ndarray], Any]
"""From uint8 [H, W, 3] to a label map, or objects, on the host."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        system: segjax, torch, torch-compile or torch-onnxruntime.
        network: simple_cnn, unet, fcn or mask_rcnn.
        size: Side of the image in pixels.
        folder: For files that contestants share.
    """

    system: str = "segjax"
    network: str = "unet"
    size: int = 128
    folder: str = ""


def image_of(size: int) -> np.ndarray:
    """Returns uint8 [H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)


def segjax_call(task: Task) -> Call:
    """The library's forward pass, compiled for one image."""
    import jax
    import jax.numpy as jnp

    from segjax import forward, models

    if task.network == "mask_rcnn":
        return _segjax_detector(task)
    made: Any = {
        "simple_cnn": lambda: models.SimpleCNN(CLASSES),
        "unet": lambda: models.UNet(CLASSES, UNET, norm=models.layers.batch_norm),
        "fcn": lambda: models.FCN(
            CLASSES, widths=FCN, convs=CONVS, head_width=HEAD_WIDTH
        ),
    }[task.network]()
    run = forward.make_forward(made)
    blank = jnp.zeros((1, task.size, task.size, 3))
    variables = jax.jit(lambda key: made.init(key, blank, train=False))(
        jax.random.key(0)
    )

    @jax.jit
    def infer(variables: Any, image: Any) -> Any:
        logits, _ = run(variables, {"image": image[None]})
        return jnp.argmax(logits[0], axis=-1).astype(jnp.uint8)

    return lambda image: np.asarray(infer(variables, image))


def _segjax_detector(task: Task) -> Call:
    import jax
    import mask_rcnn_segjax

    from segjax import forward, models

    work = _detector(task)
    made = mask_rcnn_segjax.network(work)
    variables = jax.device_put(mask_rcnn_segjax.imported(work, made))
    run = forward.make_forward(made, model_inputs=models.mask_rcnn_inputs)

    @jax.jit
    def infer(variables: Any, image: Any) -> Any:
        outputs, _ = run(variables, {"image": image[None]})
        return outputs

    return lambda image: models.instances(infer(variables, image))[0]["masks"]


def torch_call(task: Task) -> Call:
    """PyTorch's network, channels last: eager, compiled, or run by onnxruntime."""
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if task.network == "mask_rcnn":
        return _torch_detector(task)
    import torch_networks

    net: Any = {
        "simple_cnn": lambda: torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, CLASSES, 3, padding=1),
        ),
        "unet": lambda: torch_networks.UNet(CLASSES, UNET, norm=True, padding=1),
        "fcn": lambda: torch_networks.FCN(CLASSES, FCN, CONVS, HEAD_WIDTH),
    }[task.network]()
    net = net.to(device).to(memory_format=torch.channels_last).eval()

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, image: Any) -> Any:
            x = image.permute(2, 0, 1)[None].float() / 255
            return self.net(x).argmax(1)[0].to(torch.uint8)

    whole: Any = Whole()
    if task.system == "torch-onnxruntime":
        return _onnxruntime_call(whole, task)
    if task.system == "torch-compile":
        whole = torch.compile(whole)

    @torch.inference_mode()
    def infer(image: np.ndarray) -> np.ndarray:
        return whole(torch.from_numpy(image).to(device)).cpu().numpy()

    return infer


def _onnxruntime_call(whole: Any, task: Task) -> Call:
    import onnxruntime
    import torch

    path = pathlib.Path(task.folder) / f"{task.network}-{task.size}.onnx"
    image = torch.from_numpy(image_of(task.size))
    torch.onnx.export(whole.cpu(), (image,), str(path), dynamo=True)
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def _torch_detector(task: Task) -> Call:
    import torch
    import torchvision_network

    net = torchvision_network.loaded(_detector(task)).eval()
    device = torchvision_network.DEVICE

    @torch.inference_mode()
    def infer(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
        return net([x])[0]["masks"].cpu().numpy()

    return infer


def _detector(task: Task) -> Any:
    """The task of mask_rcnn.py, with weights that both systems read."""
    import mask_rcnn_work

    path = pathlib.Path(task.folder) / "mask_rcnn.npz"
    work = mask_rcnn_work.Task(
        mode="infer", height=task.size, width=task.size, weights=str(path)
    )
    if not path.exists():
        sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
        import torchvision_network

        torchvision_network.save_weights(work, path)
    return work


def main() -> None:
    """Builds what the first argument says, then answers with the times of calls."""
    bench.prepare_process()
    task = Task(**json.loads(sys.argv[1]))
    call = (segjax_call if task.system == "segjax" else torch_call)(task)
    image = image_of(task.size)
    facts = {"first_seconds": bench.seconds(lambda: call(image))}
    if task.network == "mask_rcnn" and task.system == "torch":
        import torchvision_network

        facts["slow_operations"] = not torchvision_network.COMPILED_OPERATIONS
    for _ in range(3):
        call(image)

    def reply(calls: int) -> list[float]:
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            call(image)
            times.append(time.perf_counter() - start)
        return times

    bench.answer(facts, reply)


if __name__ == "__main__":
    main()
