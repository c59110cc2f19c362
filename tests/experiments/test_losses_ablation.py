import inspect
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
DIGITS = [str(d) for d in range(10)]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import losses_ablation

    return losses_ablation


@pytest.fixture
def report(script):
    import losses_ablation_report

    return losses_ablation_report


def scored(iou, *, slope=0.0):
    """Scores of a run in which digit d has IoU iou - slope * d."""
    results = {f"iou/{d}": iou - slope * d for d in range(10)}
    results |= {f"recall/{d}": 0.5 for d in range(10)}
    ink = {"ink_mean_boundary_iou": 0.8, "ink_mean_hd95_per_image": 1.5}
    return {**results, "mean_boundary_iou": 0.25, **ink}


def test_table_by_hand(report):
    found = {
        "base": [scored(0.5, slope=0.01), scored(0.7, slope=0.01)],
        "best": [scored(0.6), scored(0.9)],
    }
    head, _, best, base = report.table(found, DIGITS).splitlines()
    names = [cell.strip() for cell in head.split("|")[1:-1]]
    best, base = (
        dict(zip(names, (c.strip() for c in line.split("|")[1:-1]), strict=True))
        for line in (best, base)
    )
    # IoU of base: 0.5 - 0.045 and 0.7 - 0.045; best is 0.145 and 0.245 above it.
    assert best["loss"] == "best"
    assert best["IoU"] == best["3 rare"] == "0.750 ± 0.212"
    assert best["IoU - CE"] == "+0.195 ± 0.071"
    assert best["3 rare - CE"] == "+0.230 ± 0.071"
    assert base["IoU"] == "0.555 ± 0.141"
    assert base["IoU - CE"] == base["ink - CE"] == "+0.000 ± 0.000"
    assert base["3 common"] == "0.590 ± 0.141"  # Digits 0 to 2, the most frequent.
    assert base["3 rare"] == "0.520 ± 0.141"  # 7 to 9.
    assert base["rare recall"] == "0.500 ± 0.000"
    assert base["ink HD95"] == "1.500 ± 0.000"


def test_one_seed_has_no_spread(report):
    assert "±" not in report.table({"base": [scored(0.5)]}, DIGITS)


def test_figure_is_drawn(report, tmp_path):
    found = {f"loss {i}": [scored(0.1 * i), scored(0.12 * i)] for i in range(8)}
    frequency = dict(zip(DIGITS, np.geomspace(0.03, 0.003, 10), strict=True))
    report.draw(found, frequency, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_ink_merges_all_digits(report):
    metric = jax.jit(report.make_metric(("background", "0", "1")))
    truth = np.zeros((1, 8, 8), np.int32)
    truth[:, 2:6, 2:6] = 1
    batch = {
        "label": jnp.asarray(truth),
        "valid": jnp.ones((1, 8, 8), bool),
        "weight": jnp.ones(1),
        "index": jnp.zeros(1, jnp.int32),
    }
    other = np.where(truth == 1, 2, 0)  # The wrong digit in the right place.
    results = metric(jnp.asarray(np.eye(3, dtype=np.float32)[other]), batch).compute()
    assert results["iou/0"] == results["mean_boundary_iou"] == 0
    assert results["ink_mean_boundary_iou"] == 1
    assert results["ink_mean_hd95_per_image"] == 0


def test_every_loss_of_multiclass_logits_has_a_row(script):
    source = inspect.getsource(script.objectives)
    public = {
        name
        for name, f in vars(losses).items()
        if inspect.isfunction(f)
        and list(inspect.signature(f).parameters)[:2] == ["logits", "labels"]
    }
    binary = {"lovasz_hinge"}
    for name in public - binary:
        assert f"losses.{name}" in source


def test_long_tail_thins_out_the_later_digits(script):
    scene = {"image": np.zeros((4, 4, 3), np.uint8), "instances": np.zeros((4, 4))}
    examples = [
        scene | {"label": np.full((4, 4), 1 + digit, np.uint8)}
        for digit in (0, 9)
        for _ in range(200)
    ]
    classes = ("background", *DIGITS)
    dataset = types.SimpleNamespace(splits={"train": examples}, classes=classes)
    whole = script.long_tail(dataset, rarest=1.0)
    assert len(whole.pixel_counts) == 400
    thin = script.long_tail(dataset, rarest=0.1)
    assert thin.pixel_counts[:, 1].astype(bool).sum() == 200  # Digit 0 keeps all.
    assert 5 <= thin.pixel_counts[:, 10].astype(bool).sum() <= 40
    np.testing.assert_allclose(thin.frequency.sum(), 1)


def test_an_epoch_has_each_scene_once(script):
    arrays = {"index": np.arange(12)}
    scenes = script.Scenes(arrays, np.ones((12, 2)))
    batches = [b["index"] for b in scenes.batches(size=4, steps=6, seed=0)]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(np.concatenate(epoch)) == list(range(12))
    again = next(scenes.batches(size=4, steps=1, seed=0))["index"]
    np.testing.assert_array_equal(batches[0], again)
