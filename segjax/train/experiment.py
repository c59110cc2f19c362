"""An experiment: the numbers (`TrainConfig`) and the objects of a run."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax

from segjax import ops
from segjax.errors import UserError
from segjax.forward import Forward, image_only
from segjax.train import sharding
from segjax.train.checkpoint import Checkpoints
from segjax.train.evaluate import Evaluator, make_evaluator
from segjax.train.state import InitFrom, Spec, TrainState, batch_spec, make_init
from segjax.train.step import Step, Update, as_step, skip_nonfinite, supervised_step
from segjax.typing import (
    Augmentation,
    Batch,
    Data,
    Key,
    MetricFn,
    ModelInputs,
    Objective,
    Preprocess,
)

OnStep = Callable[[int, Mapping[str, float]], str | None]
OnEval = Callable[[Sequence[Mapping[str, Any]]], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The scalars of the training loop.

    Attributes:
        steps: Optimizer updates in total, across restarts.
        batch_size: Images per update, over all devices.
        accumulate: Micro-batches per update, for batches that do not fit in memory;
            see `train.value_and_grad`.
        seed: Seeds initialization, dropout, augmentation and the data order.
        eval_every: Updates between evaluations, each of which saves a checkpoint;
            0 for once an epoch.
        log_every: Updates between lines of `metrics.jsonl`.
        monitor: The validation metric that picks the best checkpoint.
        mode: "max" if higher is better, "min" if lower is, as of a loss.
        samples: Images drawn at the end of the run.
        skip_nonfinite: How many updates with a non-finite loss or gradient may be
            skipped; 0 stops at the first.
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
                raise UserError(
                    f"{name} must be at least {minimum}, got {value}. "
                    f"Give --{name.replace('_', '-')} {max(minimum, 1)} or more."
                )
        if self.seed >= 2**32:
            raise UserError(
                f"seed must be below 2**32, got {self.seed}: JAX's keys keep 32 bits "
                f"of it. Give --seed {self.seed % 2**32}, which is the same key."
            )
        if self.mode not in ("max", "min"):
            raise UserError(f'mode needs to be "max" or "min", got {self.mode!r}.')
        if self.mode == "max" and self.monitor.partition("/")[0] == "loss":
            raise UserError(
                f"monitor={self.monitor!r} with mode='max' would keep the worst "
                f"checkpoint. Give mode='min'."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that training needs.

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
        model_inputs: `batch -> keyword arguments of the model`; the image by default.
        init_from: `fresh variables -> variables` before the first step, such as
            `interop.init_from(interop.load("resnet50"))`; None for fresh ones.
        step: `experiment -> Step`, or a plain function `(state, batch) -> (state,
            metrics)`: one update. `train.supervised_step` minimizes the objective; see
            docs/extending.md for others.
        task: The kind of outputs: "semantic" (one class per pixel), "multilabel" (yes
            or no for each class and pixel) or "instance". None: the model's attribute
            `task`, else semantic.
        on_step: `(step, metrics) -> None, or a reason to stop`: called on the host for
            every update, in order, whenever the log writes a line.
        on_eval: `(evaluations) -> None, or a reason to stop`: called on the host after
            each evaluation with all records so far, the newest last, so that a function
            without state decides the same after a resume.
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
    init_from: InitFrom | None = None
    step: Callable[["Experiment"], Step | Update] = supervised_step
    task: Literal["semantic", "multilabel", "instance"] | None = None
    on_step: OnStep | None = None
    on_eval: OnEval | None = None

    @property
    def forward(self) -> Forward:
        """The model with its preprocessing and inputs, which every caller runs."""
        return Forward(self.model, self.preprocess, self.model_inputs)


def build_step(experiment: Experiment) -> Step:
    """Returns the train step of an experiment, not compiled."""
    step = as_step(experiment.step(experiment))
    return skip_nonfinite(step) if experiment.config.skip_nonfinite else step


def initializer(experiment: Experiment, spec: Spec) -> Callable[[Key], TrainState]:
    """Returns `key -> initial state` for stored batches as `spec` describes them."""
    return make_init(
        experiment.forward,
        experiment.optimizer,
        spec=spec,
        init_from=experiment.init_from,
        complete=build_step(experiment).init,
    )


def abstract_state_of(experiment: Experiment, spec: Spec) -> TrainState:
    """Returns the shapes and dtypes of an experiment's state without computing it."""
    bare = dataclasses.replace(experiment, init_from=None)
    return jax.eval_shape(initializer(bare, spec), jax.random.key(0))


def evaluator(
    experiment: Experiment, mesh: jax.sharding.Mesh | None = None
) -> Evaluator:
    """Returns `make_evaluator` with the parts of an experiment."""
    return make_evaluator(
        experiment.forward,
        experiment.objective,
        experiment.metric,
        mesh,
        variables=build_step(experiment).variables,
    )


def open_checkpoints(experiment: Experiment, run: pathlib.Path) -> Checkpoints:
    """Opens the checkpoints of a run, ranked by the metric that it monitors."""
    config = experiment.config
    folder = run / "checkpoints"
    return Checkpoints(folder, monitor=config.monitor, mode=config.mode)


def host_batches(experiment: Experiment, first: int) -> Generator[Batch, None, None]:
    """Yields this process's part of the training batches after the first `first`."""
    return experiment.data.train_batches(
        batch_size=experiment.config.batch_size,
        seed=experiment.config.seed,
        first_batch=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def data_spec(data: Data) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns `batch_spec` of the training batches, by reading one of them."""
    with contextlib.closing(data.train_batches(batch_size=1, seed=0)) as batches:
        return batch_spec(next(batches))


def evaluation_split(splits: Sequence[str]) -> str:
    """Returns the split that picks the best checkpoint.

    It is validation where there is one, else test, else train.
    """
    return next(s for s in ("validation", "test", "train") if s in splits)


def final_split(splits: Sequence[str]) -> str:
    """Returns the split of the final evaluation: test, else `evaluation_split`."""
    return "test" if "test" in splits else evaluation_split(splits)


def check_batch_size(experiment: Experiment) -> None:
    """Raises a ValueError if the batch size fits neither the devices nor the data.

    A batch larger than the training split repeats images; 64 times its size is taken
    for a mistake.
    """
    config = experiment.config
    sharding.check_divides(
        config.batch_size,
        sharding.make_mesh().size,
        micro_batches=config.accumulate,
    )
    examples = experiment.data.num_examples("train")
    limit = max(64 * examples, 1024)
    if config.batch_size > limit:
        raise UserError(
            f"--batch-size needs at most {limit}, 64 times the {examples} examples of "
            f"the training split, got {config.batch_size}."
        )


def check_labels(batch: Batch, num_classes: int) -> None:
    """Raises a ValueError if a label of a host batch is neither a class nor ignored.

    Args:
        batch: A stored batch. One without `label` passes.
        num_classes: C.
    """
    if "label" not in batch or np.ndim(batch["label"]) != 3:
        return
    label = np.asarray(batch["label"])
    if "valid" in batch:
        valid = np.asarray(batch["valid"])
    else:
        valid = label != ops.ignore_index(label.dtype)
    wrong = valid & ((label < 0) | (label >= num_classes))
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong.any((1, 2)))[0])
    value = int(label[row][wrong[row]][0])
    index = int(np.asarray(batch["index"])[row])
    raise UserError(
        f"Labels need ids from 0 to {num_classes - 1}, one for each of {num_classes} "
        f"classes, got {value} in example {index}. Correct the label, name the class, "
        f"or mark pixels without a class by the greatest number of the dtype."
    )
