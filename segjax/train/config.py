"""What a run is made of: numbers in `TrainConfig`, objects in `Experiment`."""

import dataclasses
from typing import Any

import optax

from segjax import ops
from segjax.forward import Forward, image_only
from segjax.train.state import Start
from segjax.typing import (
    Augmentation,
    Data,
    MetricFn,
    ModelInputs,
    Objective,
    Preprocess,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Scalars of the loop; models, losses and optimizers are passed as objects.

    Attributes:
        steps: Optimizer updates in total, across restarts.
        batch_size: Images per update, over all devices.
        accumulate: Micro-batches per update, for batches that do not fit in memory;
            see `make_accumulating_step`.
        seed: Seeds initialisation, dropout, augmentation and the data order.
        eval_every: Updates between evaluations, each of which saves a checkpoint;
            0 for once an epoch.
        log_every: Updates between lines of `metrics.jsonl`.
        monitor: The validation figure that picks the best checkpoint; higher is
            better.
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
            `interop.start_from(interop.load("resnet50"))`; they stay unless given.
    """

    config: TrainConfig
    data: Data
    model: Any
    objective: Objective
    optimizer: optax.GradientTransformation
    metric: MetricFn
    augment: Augmentation | None = None
    preprocess: Preprocess = ops.UnitRange()
    model_inputs: ModelInputs = image_only
    init_from: Start | None = None

    @property
    def forward(self) -> Forward:
        """The model with its preprocessing: what everything runs it by."""
        return Forward(self.model, self.preprocess, self.model_inputs)
