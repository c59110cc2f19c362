"""Images of hundreds of sizes are evaluated by few programs, with the same metrics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import data, losses, metrics, models, train

CLASSES = ("dark", "bright")
IMAGES, LIMIT = 500, 8


class Pointwise(nn.Module):
    """Classifies each pixel independently; records the shapes it is traced with."""

    traced: tuple = ()

    @nn.compact
    def __call__(self, image, *, train):
        Pointwise.shapes.append(image.shape)
        bright = image.mean(-1, keepdims=True) - 0.5
        bright = bright * self.param("scale", nn.initializers.ones, ())
        return jnp.concatenate([-bright, bright], -1)

    shapes = []  # noqa: RUF012


class Boxes(nn.Module):
    """A detector that returns the unpadded image as one object."""

    @nn.compact
    def __call__(self, image, *, size, train):
        Pointwise.shapes.append(image.shape)
        rows = len(image)
        scale = self.param("scale", nn.initializers.ones, ())
        height, width = size[:, 0], size[:, 1]
        box = jnp.stack([0 * width, 0 * height, width, height], -1) * scale
        return models.Detections(
            boxes=box[:, None].astype(jnp.float32),
            scores=jnp.full((rows, 1), 0.9),
            classes=jnp.ones((rows, 1), jnp.int32),
            object_mask=jnp.ones((rows, 1), bool),
            masks=jnp.ones((rows, 1, 4, 4)),
            size=size,
            aligned=True,
        )


@pytest.fixture(scope="module")
def many():
    """Images of 500 sizes, and labels that correlate with brightness."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 121, (IMAGES, 2))
    images = [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes]
    labels = [
        ((x.mean(-1) > 127) ^ (rng.random(x.shape[:2]) < 0.1)).astype(np.uint8)
        for x in images
    ]
    split = {"train": (images[:4], labels[:4]), "validation": (images, labels)}
    return data.from_arrays(split, classes=CLASSES), images, labels


def evaluate(forward, objective, metric, pipeline):
    variables = forward.model.init(
        jax.random.key(0),
        **forward.model_inputs(
            {"image": jnp.zeros((1, 8, 8, 3)), "size": jnp.full((1, 2), 8)}
        ),
        train=False,
    )
    state = train.TrainState(0, variables["params"], {}, (), jax.random.key(0))
    mesh = train.make_mesh(jax.devices()[:1])
    evaluator = train.make_evaluator(forward, objective, metric, mesh)
    Pointwise.shapes.clear()
    batches = pipeline.eval_batches("validation", batch_size=16)
    found = evaluator(state, batches)
    # The first shape is traced once more to get the output shapes.
    assert len(Pointwise.shapes) <= LIMIT + 1
    assert len(set(Pointwise.shapes)) == LIMIT
    return found


def test_semantic_evaluation(many):
    scenes, images, labels = many
    found = evaluate(
        train.make_forward(Pointwise()),
        losses.semantic(ce=(1.0, losses.cross_entropy)),
        metrics.semantic(CLASSES),
        data.Pipeline(dataset=scenes),
    )
    counts = np.zeros((2, 2), np.int64)
    for image, label in zip(images, labels, strict=True):
        bright = image.astype(np.float32).mean(-1) / np.float32(255) > 0.5
        np.add.at(counts, (label, bright.astype(int)), 1)
    assert found["pixel_accuracy"] == pytest.approx(counts.trace() / counts.sum())


def test_detection_evaluation(many):
    scenes, images, _ = many
    full = {
        split: [e | {"instances": np.ones(e["label"].shape, np.int32),
                     "label": np.ones_like(e["label"])} for e in examples]
        for split, examples in scenes.splits.items()
    }  # fmt: skip
    numbered = data.Dataset("objects", CLASSES, full, "objects")
    forward = train.make_forward(
        Boxes(), model_inputs=lambda b: {"image": b["image"], "size": b["size"]}
    )
    found = evaluate(
        forward,
        losses.instance(),
        metrics.detections(CLASSES),
        data.Pipeline(dataset=numbered, max_objects=1),
    )
    # Every image is one object, found with its exact box and mask.
    assert found["box_ap"] == pytest.approx(1)
    assert found["mask_ap"] == pytest.approx(1)
    assert found["tp@0.50"] == len(images)
