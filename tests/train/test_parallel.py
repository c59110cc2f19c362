"""1, 2, 4 and 8 devices, jit over a mesh and pmap give the same numbers."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from segjax import train
from tests.train import agreement

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one():
    """Results of one device, for the whole batch and for two micro-batches."""
    return {
        (norm, way): agreement.three_steps(norm, way, jax.devices()[:1])
        for norm in agreement.NORMS
        for way in ("jit", "jit_accumulated")
    }


def assert_agrees(got, one, norm, way):
    expected = one[norm, "jit_accumulated" if "accumulated" in way else "jit"]
    assert agreement.difference(got, expected) < 1e-5


@pytest.mark.parametrize("norm", agreement.NORMS)
@pytest.mark.parametrize(
    ("count", "way"),
    [
        (2, "jit"),
        (4, "jit"),
        (4, "pmap"),
        (4, "jit_accumulated"),
        (4, "pmap_accumulated"),
    ],
)
def test_devices_agree_with_one(norm, count, way, one):
    devices = jax.devices()
    assert len(devices) == 4
    got = agreement.three_steps(norm, way, devices[:count])
    assert_agrees(got, one, norm, way)


def test_the_comparison_can_fail(one):
    """Three steps move the parameters, and micro-batches change batch norm's."""
    first = agreement.first_state("batch_norm").params["Conv_0"]["kernel"]
    after = one["batch_norm", "jit"]["[0]['Conv_0']['kernel']"]
    assert np.abs(after - first).max() > 1e-2
    parts, whole = (one["batch_norm", w] for w in ("jit_accumulated", "jit"))
    assert agreement.difference(parts, whole) > 1e-3


@pytest.mark.slow
def test_eight_devices_agree_with_one(one, tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    out = tmp_path / "eight.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.train.agreement", out, *agreement.WAYS],
        env=os.environ | flags,
        cwd=ROOT,
        check=True,
        timeout=400,
    )
    found = agreement.load(out)
    assert len(found) == 8
    for (norm, way), got in found.items():
        assert_agrees(got, one, norm, way)


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
