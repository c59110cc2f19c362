"""All losses of multi-class logits, compared on digits with long-tailed frequencies.

    python experiments/losses_ablation.py

A U-Net (widths 16 to 64) is pretrained for 1,000 steps on all 6,000 scenes with
cross-entropy and soft Dice; then each loss is used for another 200 steps of AdamW
(batch 16, cosine from 2e-3) on 1,073 scenes in which digit 9 is ten times rarer than 0.
Three seeds, each with its own pretraining: 22 losses, 66 runs, in 15.5 minutes on 2 CPU
cores (JAX 0.10.2), shared with other work. The results below do not have the newer
poly-1, symmetric and bootstrapped cross-entropies, symmetric unified focal loss,
Wasserstein Dice and log-Hausdorff. In the 500 test scenes, all digits are equally
frequent. Losses have their default options and the same learning rate, not tuned for
any of them. Boundary, Hausdorff and clDice are added to soft Dice, the first two with a
fixed weight of 0.1 (the boundary paper uses generalized Dice and an increasing weight).
Not included: `lovasz_hinge`, which is binary, `sigmoid_*`, whose classes are
independent, and `deep_supervision`, which is a combinator. The results are for version
1.0.0 of `digits`; the scenes of 1.1.0, which the command uses now, are easier.

Results:

- Imbalance: no loss beats plain cross-entropy on the three rarest digits. Inverse
  frequency has a higher recall of them (0.89 against 0.74) at the same IoU, but worse
  outlines (boundary IoU of ink 0.59 against 0.84); it improved their IoU (0.45 to 0.56)
  only for the weakest pretrained network.
- Boundaries: only Lovász-softmax exceeds cross-entropy by more than the variation over
  seeds, by 0.006 ± 0.002. Border weights lose 0.025, class frequency weights 0.08 to
  0.25.
- Worst results: with soft Dice, log-cosh Dice, Jaccard and focal Tversky, the six
  rarest digits were lost entirely (IoU below 0.01) for the weakest pretrained network.
  Hausdorff improves soft Dice for all three seeds (mean IoU 0.51 to 0.55); boundary and
  clDice for two of three.
- Pretrained networks differ more than most losses: their mean IoU, background included,
  was 0.71, 0.81 and 0.83. So compare losses seed by seed; three seeds are too few for a
  significance test, and 200 steps after pretraining do not tell how losses compare in
  training from scratch.
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

from segjax import data, losses, memory, models, train
from segjax.cli import process
from segjax.typing import Batch, Objective

BASE = "cross-entropy"  # The baseline: the first row.
PRETRAIN_RATE = 3e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The options of the command.

    Attributes:
        steps: Optimizer updates of each run.
        pretrain_steps: Optimizer updates of the pretraining of each seed.
        seeds: Seeds of initialization and data order.
        batch_size: Images per update.
        learning_rate: Peak of the cosine schedule, the same for all losses.
        rarest: Fraction of its training scenes that digit 9 keeps; 1 keeps all.
        only: Names of rows besides cross-entropy; all by default.
        runs: Folder of the results of each run; existing results are reused.
        out: Folder for losses_ablation.md and losses_ablation.png.
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
        """The folder of runs with these settings."""
        return self.runs / (
            f"pretrain{self.pretrain_steps}_steps{self.steps}_batch{self.batch_size}"
            f"_rate{self.learning_rate}_rarest{self.rarest}"
        )


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Training scenes in memory; each array is [N, ...]."""

    arrays: Mapping[str, np.ndarray]
    pixel_counts: np.ndarray  # [N, C] pixels of each class in each scene.

    @property
    def frequency(self) -> np.ndarray:
        """[C] fraction of all training pixels."""
        return self.pixel_counts.sum(0) / self.pixel_counts.sum()

    def batches(self, *, size: int, steps: int, seed: int):
        """Yields one batch per step; an epoch has each scene once, less a remainder."""
        rng, number = np.random.default_rng(seed), len(self.pixel_counts)
        order = np.zeros(0, np.int64)
        for _ in range(steps):
            if len(order) < size:
                order = rng.permutation(number)
            rows, order = order[:size], order[size:]
            yield {k: v[rows] for k, v in self.arrays.items()}


def long_tail(dataset: data.Dataset, *, rarest: float) -> Scenes:
    """Drops training scenes so that digits get rarer from 0 to 9.

    Digit d keeps about rarest**(d / 9) of its scenes: a scene is kept with the
    probability of its rarest digit.
    """
    examples = list(dataset.splits["train"])
    labels = np.stack([e["label"] for e in examples]).astype(np.int32)
    valid = np.ones(labels.shape, bool)  # This data set has no ignored pixels.
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
    """Returns the objectives of all losses of multi-class logits, by row name.

    Args:
        pixel_counts: [N, C] pixels of each class in each training scene.
    """

    def alone(loss: Callable, **options) -> Objective:
        return losses.semantic(loss=(1.0, functools.partial(loss, **options)))

    def with_dice(weight: float, loss: Callable) -> Objective:
        return losses.semantic(dice=(1.0, losses.soft_dice), other=(weight, loss))

    def weighted(weights: np.ndarray) -> Objective:
        return alone(losses.cross_entropy, class_weights=tuple(map(float, weights)))

    # All classes are equally far from each other.
    equal = tuple(map(tuple, 1 - np.eye(pixel_counts.shape[1])))
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
        "poly-1": alone(losses.poly_cross_entropy),
        "symmetric cross-entropy": alone(losses.symmetric_cross_entropy),
        "soft bootstrap": alone(losses.soft_bootstrap_cross_entropy),
        "hard bootstrap": alone(losses.hard_bootstrap_cross_entropy),
        "asymmetric unified focal": alone(losses.asymmetric_unified_focal),
        "symmetric unified focal": alone(losses.symmetric_unified_focal),
        "soft Dice": alone(losses.soft_dice),
        "generalized Dice": alone(losses.generalized_dice),
        "log-cosh Dice": alone(losses.log_cosh_dice),
        "Jaccard": alone(losses.jaccard),
        "Tversky": alone(losses.tversky),
        "focal Tversky": alone(losses.focal_tversky),
        "Matthews": alone(losses.matthews),
        "Wasserstein Dice": alone(losses.wasserstein_dice, distances=equal),
        "Lovász-softmax": alone(losses.lovasz_softmax),
        "cross-entropy + soft Dice": losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        "soft Dice + 0.1 boundary": with_dice(0.1, losses.boundary),
        "soft Dice + 0.1 Hausdorff": with_dice(0.1, losses.hausdorff),
        "soft Dice + 0.1 log-Hausdorff": with_dice(0.1, losses.log_hausdorff),
        "soft Dice + clDice": with_dice(1.0, losses.soft_cldice),
    }


class Fit:
    """Runs `(name, objective, seed) -> test results`; each step is compiled once.

    Attributes:
        scenes: The training scenes of all runs.
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
        self._pretrained = functools.cache(self._pretrain)

    def __call__(self, name: str, objective: Objective, seed: int) -> dict[str, float]:
        """Trains the seed's pretrained network; ArithmeticError if it diverges."""
        if name not in self._compiled:
            step = train.make_train_step(self.forward, objective, self.optimizer)
            self._compiled[name] = jax.jit(step)  # No donation: runs share the state.
        state, step = self._pretrained(seed), self._compiled[name]
        for batch in self._batches(self.scenes, self.config.steps, seed):
            state, scalars = step(state, batch)
        if not np.isfinite(scalars["loss"]):
            raise ArithmeticError(f"{name} diverged at seed {seed}.")
        return self._evaluate(state, self._test)

    def _batches(self, scenes: Scenes, steps: int, seed: int) -> Iterator[Batch]:
        return scenes.batches(size=self.config.batch_size, steps=steps, seed=seed)

    def _pretrain(self, seed: int) -> train.TrainState:
        """Pretrains on all scenes, where digits are equally frequent.

        From scratch, each loss would need over 1,000 steps to distinguish ten digits.
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
        mean_iou = results["mean_iou"]
        print(f"seed {seed}: pretrained to mean IoU {mean_iou:.3f}", flush=True)
        return dataclasses.replace(
            state,
            step=jnp.zeros_like(state.step),
            opt_state=self.optimizer.init(state.params),
        )


def adamw(peak: float, steps: int) -> optax.GradientTransformation:
    """Returns AdamW with a cosine schedule and a short warmup."""
    warmup = min(50, steps // 10)
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps))


def load_or_train(
    config: Config, fit: Fit, rows: Mapping[str, Objective]
) -> dict[str, list[dict[str, float]]]:
    """Returns the test results of each row, one per seed; trains if there are none."""
    config.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for seed in config.seeds:  # Outermost, so that interruptions leave complete seeds.
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
    """Runs missing trainings and writes table and figure."""
    process.keep_compiled_programs()
    memory.keep_freed_memory()
    memory.use_large_pages()
    process.run_one_program_at_a_time()
    digits = data.digits()
    fit = Fit(config, digits)
    rows = objectives(fit.scenes.pixel_counts)
    if unknown := set(config.only) - rows.keys():
        raise SystemExit(f"--only takes {'; '.join(rows)}. Got {'; '.join(unknown)}.")
    only = (BASE, *config.only) if config.only else rows
    rows = {k: v for k, v in rows.items() if k in only}
    found = load_or_train(config, fit, rows)
    order = np.argsort(-fit.scenes.frequency[1:]) + 1
    frequency = {digits.classes[c]: float(fit.scenes.frequency[c]) for c in order}
    print(table(found, list(frequency)))
    # The results in the docstring are for the default settings.
    defaults = config == Config(runs=config.runs, out=config.out)
    header = __doc__ if defaults else f"Settings: `{config}`"
    page = document(header or "", found, frequency)
    (config.out / "losses_ablation.md").write_text(page)
    draw(found, frequency, config.out / "losses_ablation.png")


if __name__ == "__main__":
    main(tyro.cli(Config))
