import functools

import jax
import numpy as np
import pytest

from segjax import metrics
from tests.metrics import scenes

NAMES = scenes.NAMES


def test_combined_has_all_scores(rng):
    logits, batch = scenes.batch(rng)
    per_image = metrics.semantic_per_image(NAMES)
    both = metrics.combine(metrics.semantic(NAMES), images=per_image)
    compiled = jax.jit(both)
    parts = [compiled(*scenes.rows(logits, batch, [i])) for i in range(5)]
    scores = functools.reduce(lambda a, b: a.merge(b), parts).compute()
    want = metrics.semantic(NAMES)(logits, batch).compute()
    named = per_image(logits, batch).compute()
    want |= {f"images_{k}": v for k, v in named.items()}
    assert scores == pytest.approx(want, nan_ok=True)


def test_combine_rejects_duplicate_keys(rng):
    one = metrics.semantic(NAMES)
    both = metrics.combine(one, one)(*scenes.batch(rng))
    with pytest.raises(ValueError, match=r"distinct keys, got binary_accuracy/back"):
        both.compute()
    with pytest.raises(ValueError, match="got none"):
        metrics.combine()


def _largest(outputs, batch):
    return {"score": outputs.max((1, 2, 3))}


def _make(arrays, batch):
    assert all(isinstance(x, np.ndarray) for x in arrays.values())
    return metrics.PerImage.from_batch({"largest": arrays["score"]}, batch)


def test_on_host_makes_the_metric_after_the_device(rng):
    logits, batch = scenes.batch(rng)
    batch["weight"][4] = 0
    metric = jax.jit(metrics.on_host(_largest, _make))

    def part(rows):
        own = scenes.rows(logits, batch, rows)
        return jax.device_get(metric(*own)).with_batch(own[1])

    one, two, third = (part(rows) for rows in ([0, 1], [3, 4], [2]))
    scores = one.merge(two).compute()
    assert scores["largest"] == pytest.approx(logits[[0, 1, 3]].max((1, 2, 3)).mean())
    for merged in (one.merge(two).merge(third), third.merge(two.merge(one))):
        want = logits[:4].max((1, 2, 3)).mean()
        assert merged.compute() == {"largest": pytest.approx(want)}
    assert one.compute() == {"largest": pytest.approx(logits[:2].max((1, 2, 3)).mean())}


def test_on_host_outside_of_jit_makes_the_metric_immediately(rng):
    logits, batch = scenes.batch(rng)
    found = metrics.on_host(_largest, _make)(logits, batch)
    assert found.compute() == {"largest": pytest.approx(logits.max((1, 2, 3)).mean())}
