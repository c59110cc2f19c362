"""All metrics at once, inside one compiled evaluation over four devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, metrics, train
from tests.metrics import scenes

NAMES = scenes.NAMES
METRIC = metrics.combine(
    metrics.semantic_per_image(NAMES),
    metrics.surface(NAMES),
    metrics.boundary_iou(NAMES),
    metrics.ranking(NAMES),
    metrics.calibration(NAMES),
    metrics.centerline_dice(NAMES),
    metrics.objects(metrics.Matching.from_batch, metrics.Panoptic.from_objects),
    all=metrics.semantic(NAMES),
)


class Scale:
    """A network whose logits are the channels of the image."""

    def apply(self, variables, image, *, train, rngs):
        assert not train
        return image * variables["params"]["scale"]


def _batches(rng):
    for examples in (4, 3):
        logits, batch = scenes.batch(rng, examples=4, size=(8, 12))
        batch["instances"] = metrics.connected_components(batch["label"] == 1)
        batch["weight"][examples:] = 0
        yield {"image": logits} | batch


def test_four_devices_equal_one_image_at_a_time(rng):
    batches = list(_batches(rng))
    for i, batch in enumerate(batches):
        batch["index"] += 4 * i
    params = {"scale": jnp.float32(2)}
    state = train.TrainState(0, params, {}, (), jax.random.key(0))
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    evaluate = train.make_evaluator(
        train.make_forward(Scale()), objective, METRIC, train.make_mesh()
    )
    scores = evaluate(state, iter(batches))
    metric = scenes.compiled(METRIC)
    parts = [
        metric(*scenes.rows(2 * batch["image"], batch, [i]))
        for batch in batches
        for i in np.flatnonzero(batch["weight"])
    ]
    want = functools.reduce(lambda a, b: a.merge(b), parts).compute()
    assert len(want) > 100
    found = {k: scores[k] for k in want}
    assert found == pytest.approx(want, rel=1e-5, abs=1e-6, nan_ok=True)
    assert scores.keys() - want.keys() == {"loss", "loss/ce"}
