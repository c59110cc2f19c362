"""What a run is made of: numbers in `TrainConfig`, objects in `Experiment`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import optax

from segjax import ops
from segjax.forward import Forward, image_only
from segjax.train.state import Start
from segjax.train.step import Step, Update, supervised_step
from segjax.typing import (
    Augmentation,
    Data,
    MetricFn,
    ModelInputs,
    Objective,
    Preprocess,
)

OnStep = Callable[[int, Mapping[str, float]], str | None]
OnEval = Callable[[Sequence[Mapping[str, Any]]], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Scalars of the loop; models, losses and optimizers are passed as objects.

    Attributes:
        steps: Optimizer updates in total, across restarts.
        batch_size: Images per update, over all devices.
        accumulate: Micro-batches per update, for batches that do not fit in memory;
            see `make_accumulating_step`.
        seed: Seeds initialization, dropout, augmentation and the data order.
        eval_every: Updates between evaluations, each of which saves a checkpoint;
            0 for once an epoch.
        log_every: Updates between lines of `metrics.jsonl`.
        monitor: The validation metric that picks the best checkpoint.
        mode: "max" if higher is better, "min" if lower is, as of a loss.
        samples: Validation images drawn at the end of the run.
        skip_nonfinite: Updates whose loss or gradient is not finite that may be left
            out; 0 stops at the first.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    eval_every: int = 0
    log_every: int = 20
    monitor: str = "mean_iou"
    mode: Literal["max", "min"] = "max"
    samples: int = 8
    skip_nonfinite: int = 0

    def __post_init__(self):
        least = {"steps": 1, "batch_size": 1, "accumulate": 1, "log_every": 1}
        least |= {"eval_every": 0, "samples": 0, "seed": 0, "skip_nonfinite": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value < minimum:
                raise ValueError(
                    f"{name} must be at least {minimum}, got {value}. "
                    f"Give --{name.replace('_', '-')} {max(minimum, 1)} or more."
                )
        if self.seed >= 2**32:
            raise ValueError(
                f"seed must be below 2**32, got {self.seed}: JAX's keys keep 32 bits "
                f"of it. Give --seed {self.seed % 2**32}, which is the same key."
            )
        if self.mode not in ("max", "min"):
            raise ValueError(f'mode needs to be "max" or "min", got {self.mode!r}.')
        if self.mode == "max" and self.monitor.partition("/")[0] == "loss":
            raise ValueError(
                f"monitor={self.monitor!r} with mode='max' would keep the worst "
                f"checkpoint. Give mode='min'."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a run needs, ready to be trained.

    Attributes:
        config: Scalars of the loop.
        data: Batches of the splits train, validation and, where labels exist, test.
        model: A linen module, `(image [B,H,W,K], *, train) -> outputs`.
        objective: `(outputs, batch) -> {name: [B]}`, such as `losses.semantic(...)`.
        optimizer: Any optax transformation; `train.with_ema` adds averaged
            parameters, which evaluation then uses.
        metric: `(outputs, batch) -> Metric`, such as `metrics.semantic(classes)`.
        augment: Applied to each example on the device, inside the step;
            `data.augment.compose` makes one of several.
        preprocess: Stored pixels to float32, before augmentation; a part of the model.
            By default integers become [0, 1] by the range of their dtype, and floats
            stay; see `data.normalize` and `data.clip_window`.
        model_inputs: What the model is given of a batch, by name; its image by default.
        init_from: What fresh variables become before the first step, such as
            `interop.init_from(interop.load("resnet50"))`; they stay unless given.
        step: `experiment -> Step`, or a plain function `(state, batch) -> (state,
            metrics)`: what an update does. `train.supervised_step` minimizes the
            objective; see docs/extending.md for others.
        task: What the outputs are: "semantic" (a class a pixel), "multilabel" (a yes
            or no for each class and pixel) or "instance"; what the model says
            (its attribute `task`), else semantic, unless given.
        on_step: `(step, metrics) -> None, or a reason to stop`: called on the host for
            every update, in order, when its metrics arrive: at each line of the log.
        on_eval: `(evaluations) -> None, or a reason to stop`: called on the host after
            each evaluation with the records of all so far, the newest last, so that a
            function without memory decides the same after a resume.
    """

    config: TrainConfig
    data: Data
    model: Any
    objective: Objective
    optimizer: optax.GradientTransformation
    metric: MetricFn
    augment: Augmentation | None = None
    preprocess: Preprocess = ops.unit_range
    model_inputs: ModelInputs = image_only
    init_from: Start | None = None
    step: Callable[["Experiment"], Step | Update] = supervised_step
    task: Literal["semantic", "multilabel", "instance"] | None = None
    on_step: OnStep | None = None
    on_eval: OnEval | None = None

    @property
    def forward(self) -> Forward:
        """The model with its preprocessing: what everything runs it by."""
        return Forward(self.model, self.preprocess, self.model_inputs)
