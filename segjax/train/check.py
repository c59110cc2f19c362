"""What is checked once, before the first update."""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from segjax import ops
from segjax.train.evaluate import make_eval_step
from segjax.train.state import batch_spec, make_init
from segjax.train.step import as_step
from segjax.typing import Batch


def label_range(batch: Batch, num_classes: int) -> None:
    """Raises a ValueError if a label of a host batch is no class and not ignored.

    Args:
        batch: As the data yield it. One without `label` passes.
        num_classes: C.
    """
    if "label" not in batch or np.ndim(batch["label"]) != 3:
        return
    label = np.asarray(batch["label"])
    if "valid" in batch:
        pixel_mask = np.asarray(batch["valid"])
    else:
        pixel_mask = label != ops.ignore_index(label.dtype)
    wrong = pixel_mask & ((label < 0) | (label >= num_classes))
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong.any((1, 2)))[0])
    value = int(label[row][wrong[row]][0])
    index = int(np.asarray(batch["index"])[row])
    raise ValueError(
        f"Labels need ids from 0 to {num_classes - 1}, one for each of {num_classes} "
        f"classes, got {value} in example {index}. Correct the label, name the class, "
        f"or mark pixels without a class by the greatest number of the dtype."
    )


def batch_fits(batch_size: int, examples: int) -> None:
    """Raises a ValueError if a batch has far more images than there are.

    The same images are repeated to fill a batch; a size this large is a slip.
    """
    most = max(64 * examples, 1024)
    if batch_size > most:
        raise ValueError(
            f"--batch-size needs at most {most}, 64 times the {examples} examples of "
            f"the training split, got {batch_size}."
        )


def same_but_for_seed(experiments: Sequence[Any], row: Sequence[Batch]) -> None:
    """Raises a ValueError if experiments would not be trained by one program.

    What is compared is what they build: the programs of the first state, of the step
    and of the evaluation.

    Args:
        experiments: Of several seeds.
        row: The first host batch of each.
    """
    if len(experiments) < 2:
        return
    kinds = [_programs(e, batch) for e, batch in zip(experiments, row, strict=True)]
    for experiment, programs in zip(experiments[1:], kinds[1:], strict=True):
        for name, digest in programs.items():
            if digest != kinds[0][name]:
                raise ValueError(
                    f"Experiments that are trained together differ in their seed "
                    f"only: the {name} of seed {experiment.config.seed} is another "
                    f"program than that of seed {experiments[0].config.seed}. Train "
                    f"it by itself, or take model, objective, optimizer, augment and "
                    f"metric from other flags than the seed."
                )


def _programs(experiment: Any, batch: Batch) -> dict[str, str]:
    """SHA-256 of the programs that an experiment builds, by what they are for."""
    step = as_step(experiment.step(experiment))
    init = make_init(
        experiment.forward,
        experiment.optimizer,
        spec=batch_spec(batch),
        complete=step.init,
    )
    key = jax.random.key(0)
    state = jax.eval_shape(init, key)
    evaluate = make_eval_step(
        experiment.forward, experiment.objective, experiment.metric
    )
    spec = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
    lowered = {
        "initialization": init.lower(key),
        "train step": jax.jit(step.update).lower(state, spec),
        "evaluation": jax.jit(evaluate).lower(
            jax.eval_shape(step.variables, state), spec
        ),
    }
    return {
        name: hashlib.sha256(program.as_text().encode()).hexdigest()
        for name, program in lowered.items()
    }
