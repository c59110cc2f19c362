"""Evaluation of a run's splits."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from segjax.errors import UserError
from segjax.memory import trim_memory
from segjax.train.evaluate import Evaluator
from segjax.train.experiment import Experiment, evaluation_split, final_split
from segjax.train.metric_writer import MetricWriter
from segjax.train.state import TrainState
from segjax.typing import Batch

Stop = Callable[[], int | None]


class SplitEvaluator:
    """Evaluates splits, and records what the images of a run are like.

    Attributes:
        image: Channels, dtype and value range of all images so far, for `model.json`.
    """

    def __init__(self, experiment: Experiment, evaluate: Evaluator, log: MetricWriter):
        """Creates an evaluator.

        Args:
            experiment: The experiment.
            evaluate: The result of `make_evaluator`.
            log: Shows the progress.
        """
        self.config, self.data = experiment.config, experiment.data
        self.image: dict[str, Any] = {}
        self._evaluate, self._log = evaluate, log
        self._part = {
            "batch_size": self.config.batch_size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def evaluate(
        self, state: TrainState, split: str, *, stop: Stop
    ) -> dict[str, float]:
        """Evaluates a split.

        Args:
            state: The state, on all devices.
            split: Name of the split.
            stop: Called before each batch; returns a signal or None.

        Raises:
            EvaluationStoppedError: On a signal.
        """
        images = self.data.num_examples(split)

        def done(own: int) -> None:
            seen = min(own * jax.process_count(), images)
            self._log.status(f"evaluating {split}: {seen}/{images} images")

        try:
            return self._evaluate(state, self._batches(split), stop=stop, done=done)
        finally:
            trim_memory()

    def check(self, state: TrainState) -> None:
        """Evaluates the largest images of the splits; see `Recorder`."""
        self._log.status("compiling the evaluation")
        split = evaluation_split(self.data.splits)
        batch = self._largest_batch(split)
        metrics = {} if batch is None else self._try(state, split, batch)
        if self.config.monitor not in metrics:
            names = ", ".join(sorted(metrics))
            raise UserError(f"monitor needs one of {names}, got {self.config.monitor}.")
        final = final_split(self.data.splits)
        last = None if final == split else self._largest_batch(final)
        if batch and last and last["image"].size > batch["image"].size:
            self._try(state, final, last)

    def note_images(self, batch: Batch) -> None:
        """Extends `image` by the images of a host batch."""
        image = np.asarray(batch["image"])[np.asarray(batch["weight"]) > 0]
        if image.size:
            low, high = float(image.min()), float(image.max())
            self.image = {
                "channels": image.shape[-1],
                "dtype": str(image.dtype),
                "low": min(low, self.image.get("low", low)),
                "high": max(high, self.image.get("high", high)),
            }

    def _batches(self, split: str) -> Generator[Batch, None, None]:
        batches = self.data.eval_batches(split, **self._part)
        with contextlib.closing(batches):
            for batch in batches:
                self.note_images(batch)
                yield batch

    def _largest_batch(self, split: str) -> Batch | None:
        """Reads the largest batch of a split, or the first if the data has no order."""
        if hasattr(self.data, "largest_eval_batch"):
            read: Any = self.data.largest_eval_batch  # type: ignore[attr-defined]
            return read(split, **self._part)
        batches = self.data.eval_batches(split, **self._part)
        with contextlib.closing(batches):
            return next(batches, None)

    def _try(self, state: TrainState, split: str, batch: Batch) -> dict[str, float]:
        """Evaluates a batch; ValueError if the memory is not enough."""
        try:
            metrics = self._evaluate(state, iter([batch]))
            trim_memory()
            return metrics
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
            rows, height, width = batch["image"].shape[:3]
            raise UserError(
                f"The memory is not enough to evaluate {rows} of the largest images of "
                f"{split}, {width}x{height} pixels. Shrink the images "
                f"(models.Shrunk, --resize), or use a smaller network."
            ) from error
