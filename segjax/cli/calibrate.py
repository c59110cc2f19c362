"""`segjax calibrate RUN`: fits a temperature on validation."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.table import Table

from segjax import inference, metrics, optional, terminal, viz
from segjax import train as training
from segjax.cli import pictures, runs, usage
from segjax.errors import UserError
from segjax.files import writing

_MAX_VALUES = 2**25
"""Logits kept for the fit; of more, pixels are drawn at equal distances."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Flags of `segjax calibrate` beside those of the experiment.

    Attributes:
        split: The split that the temperature is fitted on; by default validation, or
            what training evaluated on if there is none.
        checkpoint: The best checkpoint by the monitored metric, or the last one.
    """

    split: str | None = None
    checkpoint: runs.Which = "best"


def main(args) -> None:
    """Writes RUN/calibration.json and .png; prints the error before and after."""
    usage.print_if_asked(
        args,
        "segjax calibrate RUN",
        CalibrateOptions,
        runs.TrustOptions,
        note=usage.OF_EXPERIMENT,
    )
    folder = runs.folder_argument(args, "calibrate")
    prog = f"segjax calibrate {folder}"
    run = runs.load(folder, CalibrateOptions, args[1:], prog=prog)
    if run.experiment.task not in (None, "semantic") or _detects(run):
        raise UserError(
            f"segjax calibrate needs a model of exclusive classes, {folder} has the "
            f"task {run.experiment.task or 'instance'}."
        )
    splits = run.experiment.data.splits
    fitted = run.options.split or training.evaluation_split(splits)
    if fitted not in splits:
        raise UserError(f"--split needs one of {', '.join(splits)}, got {fitted}.")
    forward = _compiled(run)
    temperature = inference.fit_temperature(*_logits(run, forward, fitted))
    measured = {}
    for split in dict.fromkeys([fitted, training.final_split(splits)]):
        measured[split] = _measure(run, forward, split, temperature)
    scores = {
        split: {when: metric.compute() for when, metric in pair.items()}
        for split, pair in measured.items()
    }
    training.write_json(
        folder / "calibration.json",
        {
            "temperature": temperature,
            "fitted_on": fitted,
            "checkpoint": run.options.checkpoint,
            "step": int(run.state.step),
            "splits": scores,
        },
    )
    _print(scores, temperature, fitted, folder)
    _draw(measured, folder)


def _draw(measured: dict[str, dict[str, Any]], folder) -> None:
    try:
        diagrams = {
            split: {when: m.reliability_diagram() for when, m in pair.items()}
            for split, pair in measured.items()
        }
        picture = viz.reliability(diagrams)
    except optional.MissingPackageError as error:
        terminal.console(stderr=True).print(f"note: no figure: {error}")
        return
    writing.write_bytes(folder / "calibration.png", picture)
    with pictures.optional_report():
        pictures.write_report(folder)


def _detects(run: runs.Run) -> bool:
    return getattr(run.experiment.model, "task", "semantic") == "instance"


def _compiled(run: runs.Run):
    """Compiles `stored batch -> (logits, truth)`."""
    network, variables = run.experiment.forward, training.variables(run.state)

    @jax.jit
    def forward(variables, batch):
        prepared = network.prepare(batch)
        outputs, _ = network.apply(variables, prepared, train=False)
        truth = network.truth(prepared)
        names = ("label", "valid", "weight", "index")
        return outputs, {k: truth[k] for k in names}

    return lambda batch: forward(variables, batch)


def _batches(run: runs.Run, split: str) -> Iterator[dict]:
    data, size = run.experiment.data, run.experiment.config.batch_size
    for batch in data.eval_batches(split, batch_size=size):
        yield {k: batch[k] for k in ("image", "label", "weight", "index")}


def _logits(run: runs.Run, forward, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects logits [N, C] and labels [N] of valid pixels."""
    logits, labels = [], []
    num_classes = len(run.experiment.data.classes)
    count = run.experiment.data.num_examples(split)
    each = max(1, _MAX_VALUES // (num_classes * max(1, count)))
    for batch in _batches(run, split):
        outputs, truth = jax.device_get(forward(batch))
        for row in np.flatnonzero(truth["weight"] > 0):
            valid = np.flatnonzero(truth["valid"][row])
            chosen = valid[:: max(1, -(-len(valid) // each))]
            logits.append(outputs[row].reshape(-1, outputs.shape[-1])[chosen])
            labels.append(truth["label"][row].ravel()[chosen])
    return np.concatenate(logits), np.concatenate(labels)


def _measure(run: runs.Run, forward, split: str, temperature: float) -> dict[str, Any]:
    """Computes the calibration of all valid pixels before and after."""
    metric = metrics.calibration(run.experiment.data.classes)
    after = jax.jit(lambda logits, truth: metric(logits / temperature, truth))
    before = jax.jit(metric)
    merged: dict[str, Any] = {}
    for batch in _batches(run, split):
        logits, truth = forward(batch)
        for when, function in (("before", before), ("after", after)):
            made = jax.device_get(function(logits, truth))
            merged[when] = merged[when].merge(made) if when in merged else made
    return merged


def _print(scores, temperature: float, fitted: str, folder) -> None:
    table = Table("split", title=f"temperature {temperature:.3f}, fitted on {fitted}")
    for name in ("ECE before", "ECE after", "Brier before", "Brier after"):
        table.add_column(name, justify="right")
    for split, pair in scores.items():
        values = [
            pair[when][key] for key in ("ece", "brier") for when in ("before", "after")
        ]
        table.add_row(split, *(f"{value:.4f}" for value in values))
    console = terminal.console()
    console.print(table)
    path = folder / "calibration.json"
    console.print(f"Written: {path}", soft_wrap=True, highlight=False)
