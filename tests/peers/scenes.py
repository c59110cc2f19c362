"""Inputs as people pass them: classes that are absent, void pixels, huge logits."""

import dataclasses

import numpy as np
import scipy.ndimage

B, H, W, C = 2, 14, 15, 3


@dataclasses.dataclass(frozen=True)
class Scene:
    """One batch.

    Attributes:
        logits: [B, H, W, C] float32.
        labels: [B, H, W] int64; 255 where not valid.
        valid: [B, H, W] bool.
        targets: [B, H, W, C] soft labels, float32.
    """

    logits: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    targets: np.ndarray

    @property
    def predicted(self):
        return np.argmax(self.logits, axis=-1)

    @property
    def hot(self):
        """One-hot labels, 0 where not valid."""
        return (
            np.eye(C, dtype=np.float32)[np.where(self.valid, self.labels, 0)]
            * (self.valid[..., None])
        )

    def image(self, i):
        return Scene(*(x[i : i + 1] for x in dataclasses.astuple(self)))


def _one_hot(labels, height=60.0):
    return (height * np.eye(C)[labels] - height / 2).astype(np.float32)


def scenes() -> dict[str, Scene]:
    """All scenes by name, the same in every run."""
    rng = np.random.default_rng(0)

    def blobs():
        noise = rng.normal(size=(B, H, W, C))
        return np.argmax(scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0)), axis=-1)

    labels, every = blobs(), np.ones((B, H, W), bool)
    noise = rng.normal(size=(B, H, W, C))
    logits = (2 * np.eye(C)[labels] + 1.5 * noise).astype(np.float32)
    two, void = np.minimum(labels, 1), rng.random((B, H, W)) < 0.7
    third = np.arange(C) == 2
    soft = rng.dirichlet(np.ones(C), (B, H, W)).astype(np.float32)
    made = {
        "plain": (logits, labels, every),
        "class only predicted": (logits, two, every),
        "class nowhere": (np.where(third, np.float32(-1e4), logits), two, every),
        "class masked by -inf": (
            np.where(third, np.float32(-np.inf), logits),
            two,
            every,
        ),
        "one class": (logits, 0 * labels, every),
        "perfect": (_one_hot(labels), labels, every),
        "all wrong": (_one_hot((labels + 1) % C), labels, every),
        "huge logits": (np.float32(1e4) * np.sign(logits), labels, every),
        "void": (logits, np.where(void, labels, 255), void),
    }
    return {name: Scene(*arrays, soft) for name, arrays in made.items()}
