"""Two convolutions on scenes of handwritten digits: a baseline.

    segjax train experiments/digits_simple_cnn.py
    segjax seeds experiments/digits_simple_cnn.py --seeds 0 1 2 3 4

The receptive field of 5x5 pixels is too small to distinguish digits: a lower bound for
other architectures.

Result: test mean IoU 0.182 ± 0.003 over the five seeds (0.186 for the first); 2 CPU
cores, 46 s for one seed (busy machine).
"""

import functools

import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *,
    steps: int = 1_875,
    batch_size: int = 16,
    learning_rate: float = 1e-2,
    foreground: float = 4.0,
    width: int = 16,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        learning_rate: Peak of the cosine schedule.
        foreground: Weight of digit pixels, relative to background.
        width: Channels of the hidden layer.
        seed: Seeds initialization and the data order.
    """
    digits = data.digits()
    rate = optax.cosine_decay_schedule(learning_rate, steps)
    weights = (1.0, *[foreground] * 10)
    return train.Experiment(
        config=train.TrainConfig(steps=steps, batch_size=batch_size, seed=seed),
        data=data.Pipeline(dataset=digits),
        model=models.SimpleCNN(num_classes=len(digits.classes), width=width),
        objective=losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
        ),
        optimizer=optax.inject_hyperparams(optax.adam)(rate),
        metric=metrics.semantic(digits.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
