"""One device, a mesh of four and pmap over four give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import models, train
from tests.scenes import relative_difference

MODELS = {
    "group_norm": models.UNet(num_classes=3, widths=(4, 8)),
    "batch_norm": models.UNet(
        num_classes=3, widths=(4, 8), norm=models.layers.batch_norm
    ),
}


def jitter(key, example):
    return example | {"image": example["image"] * jax.random.uniform(key, ())}


@pytest.mark.parametrize("name", MODELS)
def test_one_device_mesh_and_pmap_agree(name, batch, objective):
    model = MODELS[name]
    # SGD: AdamW would turn the rounding of gradients that are truly zero into steps.
    optimizer = optax.sgd(0.1, momentum=0.9)
    first = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    devices = jax.devices()
    assert len(devices) == 4

    def plain(apply, **options):
        return train.make_train_step(apply, objective, optimizer, jitter, **options)

    one = train.jit_step(plain(model.apply), train.make_mesh(devices[:1]))
    mesh = train.jit_step(plain(model.apply), train.make_mesh(devices))
    mapped_model = model.clone(axis_name=train.AXIS)
    mapped = train.pmap_step(plain(mapped_model.apply, axis_name=train.AXIS))
    split = train.split_for_pmap(batch, 4)

    results = []
    for step, data in ((one, batch), (mesh, batch), (mapped, split)):
        state = jax.tree.map(jnp.copy, first)  # Steps take ownership.
        for _ in range(3):
            state, scalars = step(state, data)
        results.append(jax.device_get((state.params, state.model_state, scalars)))
    assert relative_difference(results[0][0], first.params) > 1e-3
    for other in results[1:]:
        assert relative_difference(other[0], results[0][0]) < 1e-5
        # The same augmented batch to the bit; digests of rounded numbers may differ.
        assert other[2]["digest/batch"] == results[0][2]["digest/batch"]
        numbers = [
            {k: v for k, v in scalars.items() if not k.startswith("digest/")}
            for scalars in (other[2], results[0][2])
        ]
        assert relative_difference(*numbers) < 1e-5
        if name == "batch_norm":
            assert relative_difference(other[1], results[0][1]) < 1e-5


def test_a_batch_that_does_not_divide_is_refused(batch):
    with pytest.raises(ValueError, match=r"over 3 devices, got 8 .*--batch-size 9"):
        train.split_for_pmap(batch, 3)


def test_batches_reach_the_mesh_in_order():
    mesh = train.make_mesh()
    host = [{"index": np.arange(i, i + 8)} for i in range(5)]
    for ahead in (1, 2, 9):
        got = list(train.to_devices(host, mesh, ahead=ahead))
        assert len(got) == 5
        for here, there in zip(host, got, strict=True):
            np.testing.assert_array_equal(here["index"], there["index"])
            assert len(there["index"].sharding.device_set) == 4


def test_batches_are_read_ahead_but_not_all_at_once():
    read = []

    def host():
        for i in range(10):
            read.append(i)
            yield {"index": np.arange(8)}

    stream = train.to_devices(host(), train.make_mesh(), ahead=2)
    next(stream)
    assert read == [0, 1]
