import numpy as np
import pytest

from segjax import data


def dataset(count):
    images = np.zeros((count, 4, 5, 1), np.uint8)
    labels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones(
        (1, 4, 5), np.uint8
    )
    return data.from_arrays(
        {"train": (images, labels), "validation": (images[:2], labels[:2])},
        classes=[str(k) for k in range(count)],
    )


def numbers(made, split="train"):
    return [int(example["label"][0, 0]) for example in made.splits[split]]


def test_shares_are_nested_and_keep_their_order():
    whole = dataset(40)
    found = {share: data.subset(whole, share) for share in (0.001, 0.1, 0.5, 1.0)}
    counts = {share: len(made.splits["train"]) for share, made in found.items()}
    assert counts == {0.001: 1, 0.1: 4, 0.5: 20, 1.0: 40}
    chosen = [set(numbers(made)) for made in found.values()]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    assert all(numbers(made) == sorted(numbers(made)) for made in found.values())
    assert [numbers(made, "validation") for made in found.values()] == [[0, 1]] * 4
    examples = found[0.1].splits["train"]
    assert [int(examples[i]["label"][0, 0]) for i in range(4)] == numbers(found[0.1])
    assert numbers(data.subset(whole, 0.1)) == numbers(found[0.1])
    assert numbers(data.subset(whole, 0.1, seed=1)) != numbers(found[0.1])


def test_the_fingerprint_follows_the_choice():
    whole = dataset(40)
    made = [
        data.subset(whole, 0.5),
        data.subset(whole, 0.2),
        data.subset(whole, 0.2, seed=1),
        data.subset(whole, 0.5, split="validation"),
        whole,
    ]
    assert len({one.fingerprint for one in made}) == 5
    assert data.subset(whole, 1.0).fingerprint == whole.fingerprint


def test_a_pipeline_reads_it():
    pipeline = data.Pipeline(dataset=data.subset(dataset(40), 0.1), multiple=1)
    (batch,) = pipeline.eval_batches("train", batch_size=4)
    assert batch["label"].shape == (4, 4, 5)
    examples = pipeline.dataset.splits["train"]
    assert examples.image_size(2) == (4, 5)
    assert examples.name(2) == examples[2]["name"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: data.subset(d, 0.0), "share above 0, at most 1; got 0.0"),
        (lambda d: data.subset(d, 1.5), "got 1.5"),
        (lambda d: data.subset(d, 0.5, split="dev"), "got 'dev'; .* has train, valid"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(dataset(4))


def test_joined_splits_hold_every_example_once():
    whole = dataset(3)
    joined = data.join_splits(whole)
    assert numbers(joined, "all") == [0, 1, 2, 0, 1]
    assert joined.fingerprint == whole.fingerprint
    assert data.join_splits(joined) is joined  # It has such a split.
