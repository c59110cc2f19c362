import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses


def _batch(rng, size=8):
    valid = rng.random((2, size, size)) < 0.7
    label = np.where(valid, rng.integers(0, 3, valid.shape), 255).astype(np.int32)
    return {"label": label, "valid": valid, "weight": np.ones(2, np.float32)}


def test_terms_are_named_and_weighted(rng):
    logits, batch = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), _batch(rng)
    smoothed = functools.partial(losses.cross_entropy, label_smoothing=0.1)
    objective = losses.semantic(ce=(0.25, smoothed), dice=(2.0, losses.soft_dice))
    terms = objective(logits, batch)
    assert list(terms) == ["ce", "dice"]
    arguments = logits, batch["label"], batch["valid"]
    np.testing.assert_allclose(terms["ce"], smoothed(*arguments) / 4, rtol=1e-6)
    want = 2 * losses.soft_dice(*arguments)
    np.testing.assert_allclose(terms["dice"], want, rtol=1e-6)


def test_losses_of_users_get_label_0_in_void(rng):
    def lookup(logits, labels, valid):
        assert logits.shape[:3] == labels.shape == valid.shape
        return jnp.max(labels, axis=(1, 2)).astype(jnp.float32)

    logits = np.zeros((2, 8, 8, 3), np.float32)
    terms = losses.semantic(mine=(1.0, lookup))(logits, _batch(rng))
    assert (np.asarray(terms["mine"]) <= 2).all()


def test_messages(rng):
    with pytest.raises(ValueError, match="at least one term"):
        losses.semantic()
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    for size in ((9, 8), (4, 4)):  # Not a margin, but a missing upsampling.
        with pytest.raises(ValueError, match=r"the same size, got logits .* labels"):
            objective(np.zeros((2, *size, 3), np.float32), _batch(rng))


def test_pixel_weights_of_the_batch(rng):
    batch = _batch(rng)
    batch["pixel_weight"] = rng.random((2, 8, 8)).astype(np.float32)
    logits = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    objective = losses.semantic_weighted(
        lambda batch: 2 * batch["pixel_weight"], ce=(0.5, losses.cross_entropy)
    )
    got = jax.jit(objective)(logits, batch)
    assert list(got) == ["ce"]
    want = losses.cross_entropy(
        logits, batch["label"], batch["valid"], pixel_weights=batch["pixel_weight"]
    )
    np.testing.assert_allclose(got["ce"], want, rtol=1e-6)
    small = losses.semantic_weighted(
        lambda batch: batch["pixel_weight"][:, :4], ce=(1.0, losses.cross_entropy)
    )
    with pytest.raises(ValueError, match=r"one number per pixel, \[2, 8, 8\], got"):
        small(logits, batch)


def test_border_weights_in_an_objective(rng):
    batch = _batch(rng)
    batch["instances"] = rng.integers(0, 4, (2, 8, 8)).astype(np.int32)
    logits = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    objective = losses.semantic_weighted(
        lambda batch: losses.border_weights(batch["instances"]),
        ce=(1.0, losses.cross_entropy),
    )

    @jax.jit
    def step(logits):
        return jax.grad(lambda x: objective(x, batch)["ce"].sum())(logits)

    grad = step(logits)
    none = batch | {"instances": np.zeros_like(batch["instances"])}
    plain = jax.grad(lambda x: objective(x, none)["ce"].sum())(logits)
    off = (batch["instances"] == 0) & batch["valid"]
    assert (np.abs(grad)[off].sum(-1) > np.abs(plain)[off].sum(-1)).all()
    np.testing.assert_allclose(grad[~off], plain[~off], rtol=1e-5)


def test_deep_supervision_sums_all_sizes(rng):
    batch = _batch(rng)
    logits = [rng.normal(size=(2, n, n, 3)).astype(np.float32) for n in (8, 4, 2)]
    one = losses.semantic(ce=(2.0, losses.cross_entropy), dice=(1.0, losses.soft_dice))
    got = losses.deep_supervision(one, weights=(0.5, 0.3, 0.2))(logits, batch)
    assert list(got) == ["ce", "dice"]
    want = 0
    for weight, x in zip((0.5, 0.3, 0.2), logits, strict=True):
        step = 8 // x.shape[1]  # The nearest center; in a tie the right or lower one.
        pick = slice(step // 2, None, step)
        label, valid = batch["label"][:, pick, pick], batch["valid"][:, pick, pick]
        want = want + weight * 2 * losses.cross_entropy(x, label, valid)
    np.testing.assert_allclose(got["ce"], want, rtol=1e-5)


def test_messages_of_the_combinators(rng):
    with pytest.raises(ValueError, match="semantic_weighted needs at least one term"):
        losses.semantic_weighted(lambda batch: batch["pixel_weight"])
    one = losses.semantic(ce=(1.0, losses.cross_entropy))
    with pytest.raises(ValueError, match="one weight per logit map, got none"):
        losses.deep_supervision(one, weights=())
    deep = losses.deep_supervision(one, weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="has 2 weights, got 1 outputs"):
        deep([np.zeros((2, 8, 8, 3), np.float32)], _batch(rng))
