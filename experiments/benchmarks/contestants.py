"""One system on one task, as a process that runs steps when told to.

    python experiments/benchmarks/contestants.py '{"system": "segjax", ...}'

Started by throughput.py, which tells it on standard input how many steps to run and
reads one JSON line for each answer. A process each keeps systems from sharing threads,
allocators and memory.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        system: segjax, plain (Flax), torch, or torch-compile.
        network: unet, paper_unet or fcn.
        mode: train or infer.
        batch: Images.
        size: Side of an image in pixels.
        classes: C.
        widths: Channels by scale.
        dtype: float32 or bfloat16.
    """

    system: str
    network: str
    mode: str
    batch: int
    size: int
    classes: int
    widths: tuple[int, ...]
    dtype: str

    @property
    def convs(self) -> tuple[int, ...]:
        """VGG-16's, for the FCN."""
        return (2, 2, 3, 3, 3)

    @property
    def head_width(self) -> int:
        """4096 in the paper, eight times the widest stage."""
        return 8 * self.widths[-1]

    def images(self) -> np.ndarray:
        """uint8 [B, H, W, 3]."""
        shape = (self.batch, self.size, self.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    def labels(self) -> np.ndarray:
        """int32 [B, H, W]."""
        shape = (self.batch, self.size, self.size)
        return (
            np.random.default_rng(1).integers(0, self.classes, shape).astype(np.int32)
        )


Run = Callable[[int], None]


def segjax_run(task: Task) -> tuple[Run, dict[str, Any]]:
    """The library's own step, through the public functions that the loop uses."""
    import jax
    import optax

    from segjax import losses, models, train

    dtype = jax.numpy.dtype(task.dtype)
    if task.network == "fcn":
        model: Any = models.FCN(
            task.classes,
            widths=task.widths,
            convs=task.convs,
            head_width=task.head_width,
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
        return _jax_inference(model, train.variables(state), batch["image"])
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = train.make_train_step(train.make_forward(model), objective, optimizer)
    return _jax_training(train.jit_step(step, mesh), state, (batch,))


def plain_run(task: Task) -> tuple[Run, dict[str, Any]]:
    """The obvious Flax form."""
    import jax
    import optax
    import plain_flax

    dtype = jax.numpy.dtype(task.dtype)
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
    variables = dict(init(key, jax.numpy.zeros((1, *image.shape[1:]))))
    if task.mode == "infer":
        return _jax_inference(model, variables, image)
    params = variables.pop("params")
    optimizer = optax.sgd(1e-3, momentum=0.9)
    state = (params, variables, optimizer.init(params), key)
    step = plain_flax.make_train_step(model, optimizer)
    return _jax_training(step, state, (image, label))


def _jax_training(step, state, arguments) -> tuple[Run, dict[str, Any]]:
    import jax

    start = time.perf_counter()
    compiled = step.lower(state, *arguments).compile()
    compile_seconds = time.perf_counter() - start
    kept = [state]

    def run(steps: int) -> None:
        for _ in range(steps):
            kept[0], out = compiled(kept[0], *arguments)
        jax.block_until_ready((kept[0], out))

    flops = (compiled.cost_analysis() or {}).get("flops")
    return run, {"compile_seconds": compile_seconds, "flops": flops}


def _jax_inference(model, variables, image) -> tuple[Run, dict[str, Any]]:
    import jax
    import jax.numpy as jnp

    def infer(variables, image):
        x = image / jnp.float32(255)
        return jnp.argmax(model.apply(variables, x, train=False), axis=-1)

    start = time.perf_counter()
    compiled = jax.jit(infer).lower(variables, image).compile()
    compile_seconds = time.perf_counter() - start

    def run(steps: int) -> None:
        for _ in range(steps):  # One after another: JAX would begin several at once.
            jax.block_until_ready(compiled(variables, image))

    flops = (compiled.cost_analysis() or {}).get("flops")
    return run, {"compile_seconds": compile_seconds, "flops": flops}


def torch_run(task: Task) -> tuple[Run, dict[str, Any]]:
    """PyTorch, channels last, autocast below float32; compiled if so named."""
    import pathlib

    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    import torch_networks

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    paper = task.network == "paper_unet"
    if task.network == "fcn":
        net: Any = torch_networks.FCN(
            task.classes, task.widths, task.convs, task.head_width
        )
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

    start = time.perf_counter()
    run(1)
    return run, {"compile_seconds": time.perf_counter() - start, "flops": None}


def ceilings(task: Task) -> dict[str, float]:
    """What the machine can do at best, by JAX: a large matrix product, and a copy.

    Returns:
        `flops`: per second, of a square product in the task's dtype; `bytes`: per
        second read and written, of a copy of a large array.
    """
    import jax
    import jax.numpy as jnp

    gpu = jax.default_backend() != "cpu"
    side, length = (16_384, 2**30) if gpu else (2_048, 2**26)
    a = jnp.ones((side, side), task.dtype)
    x = jnp.ones(length // 4, jnp.float32)
    product = jax.jit(lambda a: a @ a)
    copy = jax.jit(lambda x: x + 1)
    found = {}
    for name, work, argument, amount in (
        ("flops", product, a, 2 * side**3),
        ("bytes", copy, x, 2 * length),
    ):
        jax.block_until_ready(work(argument))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(work(argument))
            times.append(time.perf_counter() - start)
        found[name] = amount / min(times)
    return found


def peak_bytes(system: str) -> int | None:
    """The most memory since `forget_peak`, of the device or, on a CPU, the process."""
    if system.startswith("torch"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import jax

        if (stats := jax.devices()[0].memory_stats()) is not None:
            return stats.get("peak_bytes_in_use")
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    """Measures the process' peak memory from here on: compiling is not in it."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def main() -> None:
    """Builds what the first argument says, then answers requests until they end."""
    from segjax.cli import process
    from segjax.train import loop

    # As `segjax train` does, for every system: see there what it gives on a CPU.
    process.keep_freed_memory()
    process.run_one_program_at_a_time()
    task = Task(**json.loads(sys.argv[1]))
    task = dataclasses.replace(task, widths=tuple(task.widths))
    makes = {"segjax": segjax_run, "plain": plain_run}
    run, facts = makes.get(task.system, torch_run)(task)
    loop.trim_memory()
    run(2)
    forget_peak()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request == "ceilings":
            print(json.dumps(ceilings(task)), flush=True)
        elif request == "peak":
            print(json.dumps(peak_bytes(task.system)), flush=True)
        else:
            start = time.perf_counter()
            run(request)
            print(json.dumps((time.perf_counter() - start) / request), flush=True)


if __name__ == "__main__":
    main()
