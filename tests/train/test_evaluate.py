"""Evaluation does not depend on how examples are batched."""

import jax
import numpy as np
import pytest

from segjax import data, losses, metrics, models, train
from segjax.train.evaluate import _fetched as fetched
from segjax.train.evaluate import filled_rows
from tests.scenes import CLASSES, dataset


@pytest.fixture(scope="module")
def trained():
    model = models.SimpleCNN(num_classes=3)
    params = model.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    state = train.TrainState(0, params["params"], {}, (), jax.random.key(0))
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    mesh = train.make_mesh(jax.devices()[:1])
    metric = metrics.semantic(CLASSES)
    return state, train.make_evaluator(
        train.make_forward(model), objective, metric, mesh
    )


def test_ten_images_in_batches_of_four_equal_one_batch_of_ten(trained):
    state, evaluate = trained
    pipeline = data.Pipeline(dataset=dataset(validation=10), multiple=16)
    by = {
        n: evaluate(state, pipeline.eval_batches("validation", batch_size=n))
        for n in (4, 10)
    }
    assert by[4].keys() == by[10].keys()
    for name in by[4]:
        if name.startswith("loss"):  # Means of floats: to rounding.
            np.testing.assert_allclose(by[4][name], by[10][name], rtol=1e-6)
        else:  # Counts: exactly.
            assert by[4][name] == by[10][name], name
    assert 0 < by[4]["mean_iou"] < 1


def test_nothing_to_evaluate_is_an_error(trained):
    state, evaluate = trained
    with pytest.raises(ValueError, match="at least one example"):
        evaluate(state, iter([]))


def test_rows_are_added_for_the_devices(trained):
    """Three images on four devices: the scores are those of one device."""
    state, evaluate = trained
    pipeline = data.Pipeline(dataset=dataset(validation=3), multiple=16)
    batches = list(pipeline.eval_batches("validation", batch_size=3))
    alone = evaluate(state, iter(batches))
    model = train.make_forward(models.SimpleCNN(num_classes=3))
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    split = train.make_evaluator(model, objective, metrics.semantic(CLASSES))
    assert split(state, iter(batches)) == pytest.approx(alone, rel=1e-6)


def test_added_rows_hold_nothing():
    batch = {
        "image": np.ones((1, 4, 4, 3), np.uint8),
        "label": np.ones((1, 4, 4), np.uint8),
        "weight": np.ones(1, np.float32),
        "index": np.array([5], np.int32),
        "object_mask": np.ones((1, 2), bool),
        "size": np.array([[4, 4]], np.int32),
    }
    made = filled_rows(batch, 4)
    assert {len(x) for x in made.values()} == {4}
    for name, value in (("weight", 0), ("index", -1), ("label", 255)):
        assert (made[name][1:] == value).all()
    assert not made["object_mask"][1:].any()
    assert filled_rows(batch, 1) is batch


@pytest.mark.parametrize(("side", "ahead"), [(8, 2), (3_000, 0)])
def test_large_batches_are_not_computed_ahead_of_each_other(side, ahead):
    order = []

    def parts():
        for number in range(4):
            order.append(("computed", number))
            image = np.broadcast_to(np.uint8(0), (1, side, side, 3))
            yield np.float32(number), {"image": image}

    for made, _ in fetched(parts()):
        order.append(("fetched", int(made)))
    first = order.index(("fetched", 0))
    assert order[:first] == [("computed", n) for n in range(ahead + 1)]
    assert [n for what, n in order if what == "fetched"] == [0, 1, 2, 3]
