"""Scores U-Nets with a watershed on the nuclei of DSB2018, beside Otsu's threshold.

    python experiments/dsb2018_instances_table.py RUN... --source DIR

RUNs are seeds of dsb2018_unet_instances.py. The settings of the watershed are chosen on
validation for each row of the table, and written to the first run's instances.json for
its own row. `--limit` scores a few images only, to try the command.
"""

import argparse
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import segjax
from segjax import data, inference, metrics, train

GRID = [
    inference.Watershed(
        seed_threshold=seed, foreground_threshold=foreground, min_area=area
    )
    for seed, foreground, area in itertools.product(
        (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.4, 0.5, 0.6), (0, 12, 24)
    )
]
SCORE = "dsb2018_score@0.50"
FIRST = "U-Net, seed 0"
Maps = dict[str, list[np.ndarray]]
"""Probabilities [H, W, 3] of the images of each split."""


def main() -> None:
    """Prints the table and writes RUN/instances.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    nuclei = data.dsb2018(given.source)
    sets = {
        split: [nuclei.splits[split][i] for i in range(len(nuclei.splits[split]))]
        for split in ("validation", "test")
    }
    sets = {split: examples[: given.limit] for split, examples in sets.items()}
    table = Table("prediction", "seed", "foreground", "min area", "validation", "test")
    otsu = {
        s: matching([otsu_components(e["image"]) for e in x], x)
        for s, x in sets.items()
    }
    table.add_row("Otsu + components", "", "", "", *(f"{v:.3f}" for v in otsu.values()))
    for name, maps in rows(given.runs, sets):
        best, score = inference.best_settings(
            [maps_of(probs) for probs in maps["validation"]],
            lambda ids: matching(ids, sets["validation"]),
            GRID,
        )
        found = [inference.instances(*maps_of(probs), best) for probs in maps["test"]]
        values = (best.seed_threshold, best.foreground_threshold, best.min_area)
        test = matching(found, sets["test"])
        table.add_row(name, *map(str, values), f"{score:.3f}", f"{test:.3f}")
        if name == FIRST:
            write_settings(given.runs[0], best)
    Console().print(table)


def rows(
    runs: Sequence[pathlib.Path], sets: Mapping[str, Sequence]
) -> Iterator[tuple[str, Maps]]:
    """Yields the name of each row, and the probabilities of all images by split.

    An ensemble's are the mean of its members', with test-time augmentation too.
    """
    models = [segjax.load(run).probabilities for run in runs]
    alone = [predicted(f, sets, f"seed {n}") for n, f in enumerate(models)]
    turned = [
        predicted(inference.tta(f), sets, f"seed {n}, TTA")
        for n, f in enumerate(models)
    ]
    yield FIRST, alone[0]
    yield f"{FIRST}, TTA", turned[0]
    if len(models) > 1:
        yield f"{len(models)} seeds", mean_of(alone)
        yield f"{len(models)} seeds, TTA", mean_of(turned)


def predicted(
    predict: inference.PredictFn, sets: Mapping[str, Sequence], what: str
) -> Maps:
    """Probabilities [H, W, 3] of all images."""
    return {
        split: [
            np.asarray(predict(example["image"][None]))[0]
            for example in track(examples, f"{what}, {split}")
        ]
        for split, examples in sets.items()
    }


def mean_of(members: Sequence[Maps]) -> Maps:
    """The mean over models."""
    return {
        split: [np.mean(images, axis=0) for images in zip(*parts, strict=True)]
        for split in members[0]
        for parts in [[member[split] for member in members]]
    }


def maps_of(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Core and foreground [H, W], the two maps of the watershed."""
    return probs[..., 1], probs[..., 1] + probs[..., 2]


def matching(ids: Sequence[np.ndarray], examples: Sequence) -> float:
    """TP / (TP + FP + FN) over all nuclei, at an IoU of 0.5."""
    truth = [np.asarray(example["instances"]) for example in examples]
    return metrics.of_id_maps(metrics.Matching.from_batch, ids, truth).compute()[SCORE]


def otsu_components(image: np.ndarray) -> np.ndarray:
    """Connected components above Otsu's threshold."""
    from skimage.filters import threshold_otsu

    gray = image.mean(axis=-1)
    return metrics.connected_components((gray > threshold_otsu(gray))[None])[0]


def write_settings(run: pathlib.Path, settings: inference.Watershed) -> None:
    """Writes what `segjax predict --objects` reads."""
    train.write_json(
        run / "instances.json",
        {
            "interior": [1],
            "foreground": [1, 2],
            "class": 1,
            "settings": dataclasses.asdict(settings),
        },
    )


if __name__ == "__main__":
    main()
