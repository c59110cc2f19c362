"""Every loss of multi-class logits on digits that get rarer from 0 to 9.

    python experiments/losses_ablation.py

A U-Net (16 to 64 wide) trains 1,000 steps on all 6,000 scenes with cross-entropy and
soft Dice; then each loss goes on from there for 200 steps of AdamW (batch 16, cosine
from 2e-3) on 1,073 scenes in which digit 9 is ten times rarer than 0. Three seeds, each
with a start of its own: 66 runs in 15.5 minutes on 2 CPU cores (JAX 0.10.2), shared
with other work. The 500 test scenes hold all digits alike. Losses have their default
options and one learning rate, tuned for none of them. Boundary, Hausdorff and clDice
are added to soft Dice, the first two with a fixed weight of 0.1 (the boundary paper has
generalized Dice and a weight that grows). Left out: `lovasz_hinge`, which has two
classes, `sigmoid_*`, whose classes are independent, and `deep_supervision`, which only
combines. The results are of version 1.0.0 of `digits`; the scenes of 1.1.0, which is
what the command makes now, are easier to read.

What it shows:

- Imbalance: no loss beats plain cross-entropy on the three rarest digits. Inverse
  frequency finds more of them (recall 0.89 against 0.74) at the same IoU, and pays at
  the outlines (boundary IoU of ink 0.59 against 0.84); its IoU of them gained (0.45 to
  0.56) at the weakest start only.
- Boundaries: only Lovász-softmax is above cross-entropy by more than the seeds vary, by
  0.006 ± 0.002. Border weights lose 0.025, weights by class frequency 0.08 to 0.25.
- The worst: soft Dice, log-cosh Dice, Jaccard and focal Tversky lost the six rarest
  digits altogether (IoU below 0.01) at the weakest start. Hausdorff helps soft Dice in
  all three seeds (mean IoU 0.51 to 0.55); boundary and clDice in two of three.
- Starts differ more than most losses do: their mean IoU, background included, was 0.71,
  0.81 and 0.83. Read the differences seed by seed; three seeds are too few for a test,
  and 200 steps from a trained network say nothing of training from nothing.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from losses_ablation_report import document, draw, make_metric, table

from segjax import data, losses, models, train
from segjax.cli import process
from segjax.typing import Batch, Objective

BASE = "cross-entropy"  # What the others are compared with: the first row.
PRETRAIN_RATE = 3e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The options of the command.

    Attributes:
        steps: Optimizer updates of each run.
        pretrain_steps: Updates of the network that the runs of a seed begin with.
        seeds: Of initialization and data order.
        batch_size: Images per update.
        learning_rate: Peak of the cosine schedule, the same for all losses.
        rarest: Share of its training scenes that digit 9 keeps; 1 keeps all.
        only: Names of rows besides cross-entropy; all unless given.
        runs: Where each run's results are kept; a run that is there is not repeated.
        out: Where losses_ablation.md and losses_ablation.png go.
    """

    steps: int = 200
    pretrain_steps: int = 1_000
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_size: int = 16
    learning_rate: float = 2e-3
    rarest: float = 0.03
    only: tuple[str, ...] = ()
    runs: pathlib.Path = pathlib.Path("runs/losses_ablation")
    out: pathlib.Path = pathlib.Path("experiments")

    @property
    def folder(self) -> pathlib.Path:
        """Where runs of these settings are kept."""
        return self.runs / (
            f"pretrain{self.pretrain_steps}_steps{self.steps}_batch{self.batch_size}"
            f"_rate{self.learning_rate}_rarest{self.rarest}"
        )


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Training scenes in memory, one array a key, images first."""

    arrays: Mapping[str, np.ndarray]
    pixel_counts: np.ndarray  # [N, C] pixels of each class in each scene.

    @property
    def frequency(self) -> np.ndarray:
        """[C] share of all training pixels."""
        return self.pixel_counts.sum(0) / self.pixel_counts.sum()

    def batches(self, *, size: int, steps: int, seed: int):
        """Yields a batch a step; every epoch has each scene once, less a remainder."""
        rng, number = np.random.default_rng(seed), len(self.pixel_counts)
        order = np.zeros(0, np.int64)
        for _ in range(steps):
            if len(order) < size:
                order = rng.permutation(number)
            rows, order = order[:size], order[size:]
            yield {k: v[rows] for k, v in self.arrays.items()}


def long_tail(dataset: data.Dataset, *, rarest: float) -> Scenes:
    """Leaves out training scenes so that digits get rarer from 0 to 9.

    Digit d keeps about rarest**(d / 9) of its scenes: a scene stays with the chance
    of its rarest digit.
    """
    examples = list(dataset.splits["train"])
    labels = np.stack([e["label"] for e in examples]).astype(np.int32)
    valid = np.ones(labels.shape, bool)  # This data set has no void pixels.
    num_classes = len(dataset.classes)
    pixel_counts = np.asarray(
        losses.pixel_counts(labels, valid, num_classes=num_classes)
    )
    chance = np.concatenate([[1.0], rarest ** (np.arange(10) / 9)])
    chance = np.where(pixel_counts > 0, chance[None], 1).min(1)
    kept = np.flatnonzero(np.random.default_rng(0).random(len(chance)) < chance)
    arrays = {
        "image": np.stack([examples[i]["image"] for i in kept]),
        "label": labels[kept],
        "valid": valid[kept],
        "instances": np.stack([examples[i]["instances"] for i in kept]).astype(
            np.int32
        ),
        "weight": np.ones(len(kept), np.float32),
        "index": kept.astype(np.int32),
    }
    return Scenes(arrays, pixel_counts[kept])


def objectives(pixel_counts: np.ndarray) -> dict[str, Objective]:
    """Every loss of multi-class logits, by the name of its row.

    Args:
        pixel_counts: [N, C] pixels of each class in each training scene.
    """

    def alone(loss: Callable, **options) -> Objective:
        return losses.semantic(loss=(1.0, functools.partial(loss, **options)))

    def with_dice(weight: float, loss: Callable) -> Objective:
        return losses.semantic(dice=(1.0, losses.soft_dice), other=(weight, loss))

    def weighted(weights: np.ndarray) -> Objective:
        return alone(losses.cross_entropy, class_weights=tuple(map(float, weights)))

    return {
        BASE: alone(losses.cross_entropy),
        "cross-entropy, smoothing 0.1": alone(
            losses.cross_entropy, label_smoothing=0.1
        ),
        "cross-entropy, inverse frequency": weighted(
            losses.inverse_frequency(pixel_counts.sum(0))
        ),
        "cross-entropy, median frequency": weighted(
            losses.median_frequency(pixel_counts)
        ),
        "cross-entropy, border weights": losses.semantic_weighted(
            lambda batch: losses.border_weights(batch["instances"]),
            ce=(1.0, losses.cross_entropy),
        ),
        "balanced cross-entropy": alone(losses.balanced_cross_entropy),
        "top-k cross-entropy": alone(losses.top_k_cross_entropy),
        "OHEM cross-entropy": alone(losses.ohem_cross_entropy),
        "focal": alone(losses.focal),
        "asymmetric unified focal": alone(losses.asymmetric_unified_focal),
        "soft Dice": alone(losses.soft_dice),
        "generalized Dice": alone(losses.generalized_dice),
        "log-cosh Dice": alone(losses.log_cosh_dice),
        "Jaccard": alone(losses.jaccard),
        "Tversky": alone(losses.tversky),
        "focal Tversky": alone(losses.focal_tversky),
        "Matthews": alone(losses.matthews),
        "Lovász-softmax": alone(losses.lovasz_softmax),
        "cross-entropy + soft Dice": losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        "soft Dice + 0.1 boundary": with_dice(0.1, losses.boundary),
        "soft Dice + 0.1 Hausdorff": with_dice(0.1, losses.hausdorff),
        "soft Dice + clDice": with_dice(1.0, losses.soft_cldice),
    }


class Fit:
    """`(name, objective, seed) -> test results`; each step is compiled once.

    Attributes:
        scenes: What all runs train on.
    """

    def __init__(self, config: Config, digits: data.Dataset):
        self.config, self.digits = config, digits
        self.scenes = long_tail(digits, rarest=config.rarest)
        self.optimizer = adamw(config.learning_rate, config.steps)
        self.model = models.UNet(
            num_classes=len(digits.classes),
            widths=(16, 32, 64, 64),
            norm=models.layers.batch_norm,
        )
        self.forward = train.make_forward(self.model)
        self._evaluate = train.make_evaluator(
            self.forward,
            losses.semantic(ce=(1.0, losses.cross_entropy)),
            make_metric(digits.classes),
        )
        pipeline = data.Pipeline(dataset=digits)
        self._test = list(pipeline.eval_batches("test", batch_size=100))
        self._compiled: dict[str, Callable] = {}
        self._start = functools.cache(self._pretrain)

    def __call__(self, name: str, objective: Objective, seed: int) -> dict[str, float]:
        """Trains from the seed's start; raises ArithmeticError where that diverges."""
        if name not in self._compiled:
            step = train.make_train_step(self.forward, objective, self.optimizer)
            self._compiled[name] = jax.jit(step)  # Donates nothing: starts are shared.
        state, step = self._start(seed), self._compiled[name]
        for batch in self._batches(self.scenes, self.config.steps, seed):
            state, scalars = step(state, batch)
        if not np.isfinite(scalars["loss"]):
            raise ArithmeticError(f"{name} diverged at seed {seed}.")
        return self._evaluate(state, self._test)

    def _batches(self, scenes: Scenes, steps: int, seed: int) -> Iterator[Batch]:
        return scenes.batches(size=self.config.batch_size, steps=steps, seed=seed)

    def _pretrain(self, seed: int) -> train.TrainState:
        """Trained on all scenes, where digits are alike: what all losses begin with.

        From nothing, telling ten digits apart takes over 1,000 steps a loss.
        """
        scenes, steps = long_tail(self.digits, rarest=1.0), self.config.pretrain_steps
        optimizer = adamw(PRETRAIN_RATE, steps)
        weights = (1.0, *[4.0] * 10)  # As in digits_unet.py.
        objective = losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
            dice=(1.0, losses.soft_dice),
        )
        shape = scenes.arrays["image"].shape[1:]
        state = train.init_state(self.model, optimizer, seed=seed, image_shape=shape)
        step = jax.jit(train.make_train_step(self.forward, objective, optimizer))
        for batch in self._batches(scenes, steps, seed):
            state, _ = step(state, batch)
        results = self._evaluate(state, self._test)
        print(f"seed {seed} begins at mean IoU {results['mean_iou']:.3f}", flush=True)
        return dataclasses.replace(
            state,
            step=jnp.zeros_like(state.step),
            opt_state=self.optimizer.init(state.params),
        )


def adamw(peak: float, steps: int) -> optax.GradientTransformation:
    """AdamW under a cosine schedule with a short warmup."""
    warmup = min(50, steps // 10)
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps))


def figures_of(
    config: Config, fit: Fit, rows: Mapping[str, Objective]
) -> dict[str, list[dict[str, float]]]:
    """Test results of each row, one a seed: read where they are kept, else trained."""
    config.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for seed in config.seeds:  # Outermost: an interrupted run has whole seeds.
        for name, objective in rows.items():
            file = config.folder / f"{name.replace(' ', '_')}_{seed}.json"
            if not file.exists():
                began = time.perf_counter()
                results = fit(name, objective, seed)
                seconds = time.perf_counter() - began
                train.write_json(file, results)
                print(f"{name:34} seed {seed}  {seconds:5.1f} s", flush=True)
            found[name].append(json.loads(file.read_text()))
    return found


def main(config: Config) -> None:
    """Trains what is missing; writes table and figure."""
    process.keep_compiled_programs()
    process.keep_freed_memory()
    process.run_one_program_at_a_time()
    digits = data.digits()
    fit = Fit(config, digits)
    rows = objectives(fit.scenes.pixel_counts)
    if unknown := set(config.only) - rows.keys():
        raise SystemExit(f"--only takes {'; '.join(rows)}. Got {'; '.join(unknown)}.")
    only = (BASE, *config.only) if config.only else rows
    rows = {k: v for k, v in rows.items() if k in only}
    found = figures_of(config, fit, rows)
    order = np.argsort(-fit.scenes.frequency[1:]) + 1
    frequency = {digits.classes[c]: float(fit.scenes.frequency[c]) for c in order}
    print(table(found, list(frequency)))
    # What the header tells was found with the default settings.
    defaults = config == Config(runs=config.runs, out=config.out)
    header = __doc__ if defaults else f"Settings: `{config}`"
    page = document(header or "", found, frequency)
    (config.out / "losses_ablation.md").write_text(page)
    draw(found, frequency, config.out / "losses_ablation.png")


if __name__ == "__main__":
    main(tyro.cli(Config))
