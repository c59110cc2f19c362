"""The fitted temperature, against a known one and a general optimizer."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from segjax import inference


def test_a_known_temperature_is_found():
    """Labels are drawn from softmax(logits), and the model multiplies logits by 3."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 4)) * 2
    gumbel = -np.log(-np.log(rng.random(logits.shape)))
    labels = np.argmax(logits + gumbel, axis=-1)
    got = inference.fit_temperature((3 * logits).astype(np.float32), labels)
    assert got == pytest.approx(3, rel=0.03)

    def nll(t):
        scaled = 3 * logits / t
        own = np.take_along_axis(scaled, labels[:, None], 1)[:, 0]
        return np.mean(scipy.special.logsumexp(scaled, axis=-1) - own)

    best = scipy.optimize.minimize_scalar(nll, bounds=(0.1, 20), method="bounded")
    assert got == pytest.approx(best.x, rel=1e-3)


def test_sigmoids():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2))
    labels = rng.random(logits.shape) < scipy.special.expit(logits)
    got = inference.fit_temperature(
        (0.5 * logits).astype(np.float32), labels, multilabel=True
    )
    assert got == pytest.approx(0.5, rel=0.05)


def test_ends_and_messages():
    logits = np.float32([[0, 1], [0, 1]])
    assert inference.fit_temperature(logits, np.array([1, 1])) == pytest.approx(0.01)
    assert inference.fit_temperature(logits, np.array([0, 0])) == pytest.approx(100)
    for labels in (np.zeros(3, int), np.zeros((2, 2), int)):
        with pytest.raises(ValueError, match=r"logits \[N, C\]"):
            inference.fit_temperature(logits, labels)
    with pytest.raises(ValueError, match="at least one pixel"):
        inference.fit_temperature(logits[:0], np.zeros(0, int))
