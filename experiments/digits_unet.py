"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on scenes of handwritten digits.

    make demo
    segjax train experiments/digits_unet.py
    segjax seeds experiments/digits_unet.py --seeds 0 1 2 3 4

Result: test mean IoU 0.897 ± 0.004 over the five seeds (0.890 for the first); 2 CPU
cores, 2 min for one seed, 10 min for all (busy machine).
"""

import functools

import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *,
    steps: int = 1_875,
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    foreground: float = 4.0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        learning_rate: Peak of the cosine schedule.
        foreground: Weight of digit pixels in the cross entropy, relative to background;
            9 of 10 pixels are background.
        seed: Seeds initialization and the data order.
    """
    digits = data.digits()
    warmup = min(100, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    weights = (1.0, *[foreground] * 10)
    return train.Experiment(
        config=train.TrainConfig(steps=steps, batch_size=batch_size, seed=seed),
        data=data.Pipeline(dataset=digits),
        model=models.UNet(
            num_classes=len(digits.classes),
            widths=(16, 32, 64, 64),
            norm=models.layers.batch_norm,
        ),
        objective=losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
            dice=(1.0, losses.soft_dice),
        ),
        optimizer=optax.inject_hyperparams(optax.adamw)(rate),
        metric=metrics.semantic(digits.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
