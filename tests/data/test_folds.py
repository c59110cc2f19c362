"""Folds and groups: who is in which split."""

import numpy as np
import pytest

from segjax import data
from segjax.data.builders import folds
from segjax.errors import UserError
from tests.data import sources


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Nine patients with one to three images; a rare class in every third image."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("folds")
    files, number = {}, 0
    for patient in range(9):
        for image in range(1 + patient % 3):
            mask = (rng.random((8, 12)) < 0.5).astype(np.uint8)
            mask[0, : 4 * (number % 3 == 0)] = 2
            name = f"p{patient}_{image}.png"
            files[f"images/{name}"] = sources.png(sources.image(rng))
            files[f"masks/{name}"] = sources.png(mask)
            number += 1
    source = sources.write(root / "mine", files)
    return lambda **options: data.folder(source, data_dir=root / "prepared", **options)


def names(made):
    return {k: {e["name"] for e in v} for k, v in made.splits.items()}


def patient(name):
    return name.partition("_")[0]


def test_folds_partition_and_groups_stay_together(patients):
    views = [names(patients(folds=4, fold=i, group="^[^_]+")) for i in range(4)]
    every = views[0]["train"] | views[0]["validation"]
    assert len(every) == 18
    held = [view["validation"] for view in views]
    assert sorted(name for part in held for name in part) == sorted(every)
    for view in views:
        assert view.keys() == {"train", "validation"}
        assert view["train"] == every - view["validation"]
        ours, theirs = ({patient(n) for n in part} for part in view.values())
        assert not ours & theirs


def test_folds_have_similar_shares_of_a_rare_class(patients):
    for i in range(3):
        held = patients(folds=3, fold=i).splits["validation"]
        assert len(held) == 6
        assert sum(2 in example["label"] for example in held) == 2


def test_folds_depend_on_the_seed_alone(patients):
    one, two = (patients(folds=3, seed=1) for _ in range(2))
    assert names(one) == names(two)
    assert one.fingerprint == two.fingerprint
    assert names(patients(folds=3, seed=2)) != names(one)
    assert patients(folds=3, fold=1, seed=1).fingerprint != one.fingerprint


def test_groups_are_in_one_split_of_fractions(patients):
    got = names(patients(group="p([0-9])", validation=0.3, test=0.2))
    groups = {k: {patient(name) for name in v} for k, v in got.items()}
    assert {k: len(v) for k, v in groups.items()} == {
        "train": 4,
        "validation": 3,
        "test": 2,
    }
    assert len(set.union(*groups.values())) == 9
    assert sum(map(len, got.values())) == 18


@pytest.mark.parametrize("seed", range(3))
def test_no_fold_is_empty_and_folds_are_balanced(seed):
    rng = np.random.default_rng(seed)
    labels = [f"g{i}" for i in rng.integers(0, 40, 200)]
    content = rng.integers(0, 100, (200, 3))
    got = np.array(folds.assign(labels, content, folds=5, seed=seed))
    for group in set(labels):
        assert len({f for f, g in zip(got, labels, strict=True) if g == group}) == 1
    sums = np.array([content[got == fold].sum(axis=0) for fold in range(5)])
    shares = sums / content.sum(axis=0)
    assert np.abs(shares - 0.2).max() < 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"folds": 3, "fold": 3}, "fold 0 to folds - 1, got folds=3 and fold=3"),
        ({"fold": 1}, "fold=1 needs folds"),
        ({"folds": 10, "group": "^[^_]+"}, "folds must be 2 to 9"),
        ({"group": "("}, "is not a regular expression"),
        ({"group": "q"}, "group='q' does not occur in p0_0"),
    ],
)
def test_what_cannot_be_divided(patients, options, words):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        patients(**options)
    assert words in str(caught.value)
