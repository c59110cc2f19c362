"""Convolutions by oneDNN beside XLA's: values, derivatives, transformations."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax import onednn, ops
from segjax.ops import convolution
from tests.onednn.machine import NEEDED

pytestmark = NEEDED

CASES = [
    # inputs, outputs, kernel, strides, dilation, padding
    (3, 16, 3, 1, 1, "SAME"),
    (5, 7, 3, 2, 1, "SAME"),
    (5, 7, 3, 2, 1, 1),
    (8, 8, 3, 1, 2, 2),
    (4, 4, 3, 1, 1, "VALID"),
    (3, 16, 7, 2, 1, 3),
    (1, 1, 5, 1, 1, "SAME"),
    (16, 64, 3, 1, 1, "SAME"),  # The kernel is not copied.
    (64, 128, 3, 1, 1, "SAME"),  # All threads copy the kernel.
]
DEPTHWISE = [(12, 5, 1, 1), (24, 5, 2, 1), (8, 3, 1, 2), (17, 3, 2, 1)]
# channels, kernel, strides, dilation


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    monkeypatch.delenv("SEGJAX_ONEDNN")
    assert onednn.version() is not None


def custom(function, *args):
    """Whether a program calls oneDNN."""
    return "segjax_onednn" in jax.jit(function).lower(*args).as_text()


def check(ours, theirs, x, kernel):
    """Values, gradients, and both kinds of second derivatives."""

    def total(form):
        return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel)))

    def reverse(form):
        return jax.grad(total(form), (0, 1))

    def forward_over_reverse(form):
        return lambda *at: jax.jvp(reverse(form), at, at)[1]

    def reverse_over_reverse(form):
        def product(*at):
            return sum(
                jnp.vdot(a, b) for a, b in zip(reverse(form)(*at), at, strict=True)
            )

        return jax.grad(product, (0, 1))

    assert custom(ours, x, kernel)
    assert not custom(theirs, x, kernel)
    for derived in (
        lambda form: lambda *at: (form(*at),),
        reverse,
        forward_over_reverse,
        reverse_over_reverse,
    ):
        found, wanted = (jax.jit(derived(f))(x, kernel) for f in (ours, theirs))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("case", CASES)
def test_equals_xla(case, rng):
    inputs, outputs, size, strides, dilation, padding = case
    x = rng.normal(size=(2, 13, 17, inputs)).astype(np.float32)
    kernel = rng.normal(size=(size, size, inputs, outputs)).astype(np.float32)
    window = {"strides": strides, "dilation": dilation}
    around = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    check(
        functools.partial(ops.conv, padding=padding, **window)
        if size < 5 or strides > 1
        else functools.partial(onednn.convolution, padding=padding, **window),
        functools.partial(convolution.conv_by_xla, padding=around, **window),
        x,
        kernel,
    )


@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise_equals_xla(case, rng):
    channels, size, strides, dilation = case
    x = rng.normal(size=(2, 13, 17, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, channels)).astype(np.float32)
    spread = dilation * (size - 1) + 1
    pads = jax.lax.padtype_to_pads(
        (13, 17), (spread, spread), (strides, strides), "SAME"
    )
    window = {"strides": strides, "dilation": dilation}
    check(
        functools.partial(ops.depthwise_conv, **window),
        functools.partial(convolution.conv_by_xla, **window, padding=pads),
        x,
        kernel,
    )


@pytest.fixture
def pair(rng):
    """Four images and a kernel."""
    x = rng.normal(size=(4, 9, 11, 6)).astype(np.float32)
    return x, rng.normal(size=(3, 3, 6, 5)).astype(np.float32)


def test_eager_and_batched(pair):
    x, kernel = pair
    wanted = convolution.conv_by_xla(x, kernel)
    np.testing.assert_allclose(ops.conv(x, kernel), wanted, atol=1e-5)
    each = jax.vmap(lambda x: ops.conv(x[None], kernel)[0])(x)
    np.testing.assert_allclose(each, wanted, atol=1e-5)
    kernels = np.stack([kernel, 2 * kernel])
    both = jax.vmap(ops.conv, (None, 0))(x, kernels)
    np.testing.assert_allclose(both[1], 2 * wanted, atol=1e-4)


def test_other_dtypes_are_computed_by_xla(pair):
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in pair)
    assert not custom(ops.conv, x, kernel)


def test_a_program_for_several_devices_is_computed_by_xla(pair):
    x, kernel = pair
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    compiled = jax.jit(ops.conv).lower(x, kernel).compile()
    assert "segjax_onednn" not in compiled.as_text()
    wanted = convolution.conv_by_xla(*pair)
    np.testing.assert_allclose(compiled(x, kernel), wanted, atol=1e-5)


def test_mapped_over_devices(pair):
    x, kernel = pair
    wanted = convolution.conv_by_xla(x, kernel)
    mapped = jax.pmap(ops.conv, in_axes=(0, None))(x[:, None], kernel)
    np.testing.assert_allclose(mapped[:, 0], wanted, atol=1e-5)


@pytest.mark.parametrize("checked", [True, False])
def test_shard_map(pair, checked):
    def gradient(form, x, kernel):
        return jax.grad(lambda k: jnp.sum(form(x, k) ** 2))(kernel)

    mesh = jax.make_mesh(
        (4,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4]
    )
    data = PartitionSpec("data")
    shard = jax.shard_map(
        lambda x, kernel: gradient(ops.conv, x, kernel[0])[None],
        mesh=mesh,
        in_specs=(data, data),
        out_specs=data,
        check_vma=checked,
    )
    x, kernel = pair
    each = jax.jit(shard)(x, np.stack([kernel] * 4))
    wanted = gradient(convolution.conv_by_xla, x, kernel)
    np.testing.assert_allclose(jnp.sum(each, 0), wanted, rtol=1e-4, atol=1e-2)


def test_exported_programs_have_none(pair):
    exported = jax.export.export(jax.jit(ops.conv))(*pair)
    assert "segjax_onednn" not in exported.mlir_module()


def test_the_same_bits_each_time(pair):
    x, kernel = (np.tile(pair[0], (2, 8, 8, 1)), pair[1])
    grad = jax.jit(jax.grad(lambda k: jnp.sum(ops.conv(x, k) ** 2)))
    one, other = grad(kernel), grad(kernel)
    np.testing.assert_array_equal(one, other)


def test_many_threads_at_once(rng):
    """oneDNN's own scratch memory would belong to the thread that came first."""

    def work(side, inputs, outputs):
        x = rng.normal(size=(2, side, side, inputs)).astype(np.float32)
        kernel = rng.normal(size=(3, 3, inputs, outputs)).astype(np.float32)
        gradients = jax.grad(lambda x, k: jnp.sum(ops.conv(x, k) ** 2), (0, 1))
        return functools.partial(jax.jit(gradients), x, kernel)

    works = [work(9 + 8 * n, 4 + 3 * n, 16 - n) for n in range(6)]
    wanted = [jax.block_until_ready(call()) for call in works]

    def again(number):
        found = works[number % len(works)]()
        for a, b in zip(found, wanted[number % len(works)], strict=True):
            np.testing.assert_array_equal(a, b)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(again, range(300)))


def test_a_remat_block(pair):
    x, kernel = pair
    loss = lambda k: jnp.sum(jax.checkpoint(ops.conv)(x, k) ** 2)  # noqa: E731
    plain = jax.grad(lambda k: jnp.sum(ops.conv(x, k) ** 2))(kernel)
    np.testing.assert_allclose(jax.grad(loss)(kernel), plain, rtol=1e-5)
