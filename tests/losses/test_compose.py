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


def test_smaller_logits_meet_the_centre_of_the_labels(rng):
    batch = _batch(rng, size=9)
    logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    got = jax.jit(objective)(logits, batch)["ce"]
    # 9 - 4 = 5 rows: 2 off the top, 3 off the bottom; 9 - 5 = 4 columns.
    want = losses.cross_entropy(
        logits, batch["label"][:, 2:6, 2:7], batch["valid"][:, 2:6, 2:7]
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_users_loss_never_sees_a_void_label(rng):
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
    with pytest.raises(ValueError, match="at least 9x8 pixels, got 8x8"):
        objective(np.zeros((2, 9, 8, 3), np.float32), _batch(rng))
