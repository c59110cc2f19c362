"""Random batches for metric tests: blobs rather than noise, void, odd sizes."""

import jax
import numpy as np
import scipy.ndimage

from segjax import metrics

NAMES = ("background", "cat", "dog")


def blobs(rng, shape, *, smooth=2.0):
    """Bool [B, H, W] with connected regions, about a third True."""
    noise = rng.normal(size=shape)
    noise = scipy.ndimage.gaussian_filter(noise, (0, smooth, smooth))
    return noise > np.quantile(noise, 0.65)


def labels(rng, shape, num_classes=3):
    """int32 [B, H, W]; each class a set of blobs."""
    label = np.zeros(shape, np.int32)
    for c in range(1, num_classes):
        label[blobs(rng, shape)] = c
    return label


def batch(rng, *, examples=5, size=(13, 17), num_classes=3):
    """Logits near the truth, and a batch whose void pixels are labeled 255."""
    shape = (examples, *size)
    label = labels(rng, shape, num_classes)
    logits = rng.normal(size=(*shape, num_classes)).astype(np.float32)
    logits = scipy.ndimage.gaussian_filter(logits, (0, 1, 1, 0))
    logits += 0.5 * np.eye(num_classes, dtype=np.float32)[label]
    valid = ~blobs(rng, shape, smooth=1.0) | (rng.random(shape) < 0.5)
    return logits, {
        "label": np.where(valid, label, 255).astype(np.int32),
        "valid": valid,
        "weight": np.ones(examples, np.float32),
        "index": np.arange(examples, dtype=np.int32),
    }


def rows(logits, batch, positions):
    """The same examples, picked by position."""
    positions = np.asarray(positions)
    return logits[positions], {k: v[positions] for k, v in batch.items()}


def compiled(metric):
    """Computes a metric as evaluation does: on the device, then on the host."""
    program = jax.jit(metric)

    def made(logits, batch):
        found = jax.device_get(program(logits, batch))
        return metrics.with_batch(found, jax.device_get(dict(batch)))

    return made
