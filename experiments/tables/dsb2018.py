"""Nuclei of DSB2018 by three networks, judged by the same metrics.

    python experiments/tables/dsb2018.py --source DIR

Trains what is missing: a U-Net whose nuclei are connected components, one with a
watershed, and a Mask R-CNN. Writes dsb2018.md and .csv beside this file, with scores on
validation and on stage1_test, and dsb2018.png, the test images with the most errors.
With --quick, runs take a fifth of the time, and the files are dsb2018-quick.*.
"""

import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rows
from PIL import Image, ImageDraw

import segjax
from segjax import data, inference, metrics, viz

WATERSHED = ("--encoder", "efficientnet-lite0", "--pretrained", "--modality", "all")
SMALL = ("--small", "--batch-size", "4", "--size", "128", "--max-objects", "96")
TABLE = rows.Table(
    name="dsb2018",
    rows=[
        rows.Row("unet", "dsb2018_unet.py", steps=2_500),
        rows.Row(
            "watershed",
            "dsb2018_unet_instances.py",
            (*WATERSHED, "--batch-size", "8", "--size", "192"),
            steps=1_500,
        ),
        rows.Row("mask-rcnn", "dsb2018_mask_rcnn.py", SMALL, steps=6_600),
    ],
    metrics=(
        "dice",
        *(f"dsb2018_score@{t}" for t in ("0.50", "0.60", "0.70", "0.80", "0.90")),
        "pq",
    ),
    seeds=(0,),
    quick=(),
    published=(
        "StarDist's example notebook, on its own split of stage1_train (380 and 67 "
        "images): 0.835 at 0.50.",
    ),
)
SPLITS = ("validation", "test")
SHOWN = 5  # Images of the figure.
SIDE = 220  # Pixels of each of its pictures.

Ids = Sequence[np.ndarray]
Predict = Callable[[Mapping[str, Any]], np.ndarray]
"""Ids [H, W] of the nuclei of an example."""


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, predicts, and writes the table."""
    chosen = rows.options(TABLE, __doc__, args)
    made = rows.trained(TABLE, chosen)
    if not made:
        return
    nuclei = data.dsb2018(chosen.source).splits
    sets = {s: [nuclei[s][i] for i in range(len(nuclei[s]))] for s in SPLITS}
    table, shown = [], {}
    for row in made:
        for seed in chosen.seeds:
            run = rows.run_folder(chosen, row, seed)
            predict = PREDICTORS[row.name](run, sets["validation"])
            found = {s: [predict(x) for x in examples] for s, examples in sets.items()}
            shown.setdefault(row.name, found["test"])
            table += [
                [row.name, seed, s, *scores(found[s], x)] for s, x in sets.items()
            ]
    heads = ("row", "seed", "split", *TABLE.metrics)
    rows.write_csv(rows.written(TABLE, chosen, ".csv"), heads, table)
    picture = figure(shown, sets["test"])
    picture.save(rows.written(TABLE, chosen, ".png"), optimize=True)
    path = rows.written(TABLE, chosen, ".md")
    path.write_text("\n".join(page(chosen, made, table)))
    print(f"Written: {path}")


def page(chosen: rows.Options, made: Sequence[rows.Row], table: list) -> list[str]:
    """The lines of the table in Markdown, with the commands."""
    lines = []
    for split in SPLITS:
        cells = []
        for row in made:
            of_row = [x[3:] for x in table if (x[0], x[2]) == (row.name, split)]
            means = map(rows.mean_and_deviation, zip(*of_row, strict=True))
            cells.append([row.name, *means])
        heads = ("row", *TABLE.metrics)
        lines += [f"### {split}", "", *rows.markdown(heads, cells), ""]
    for row in made:
        runs = segjax.results(*(rows.run_folder(chosen, row, s) for s in chosen.seeds))
        minutes = sum(run["seconds"] for run in runs) / 60 / len(runs)
        shown = shlex.join(rows.published_command(TABLE, chosen, row, "SEED"))
        lines.append(f"- {row.name}, {minutes:.0f} min a seed: `{shown}`")
    return [*lines, "", "Published:", "", *(f"- {x}" for x in TABLE.published), ""]


def scores(found: Ids, examples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Dice over pixels, scores of objects over all images, and panoptic quality.

    Args:
        found: Ids [H, W] of each image.
        examples: With their true `instances`.
    """
    truth = [np.asarray(example["instances"]) for example in examples]
    matching = metrics.of_id_maps(metrics.Matching.from_batch, found, truth)
    panoptic = metrics.of_id_maps(metrics.Panoptic.from_objects, found, truth)
    both = sum(((a > 0) & (b > 0)).sum() for a, b in zip(found, truth, strict=True))
    either = sum((ids > 0).sum() for ids in (*found, *truth))
    by_threshold = matching.table()["dsb2018_score"][::2]
    quality = panoptic.compute()["pq/object"]
    return [float(2 * both / either), *map(float, by_threshold), float(quality)]


def by_components(run: pathlib.Path, _: Any) -> Predict:
    """Nuclei are the connected components of the class."""
    model = segjax.load(run)

    def predict(example: Mapping[str, Any]) -> np.ndarray:
        labels = model.predict(example["image"]).labels
        return metrics.connected_components((labels == 1)[None])[0]

    return predict


def by_watershed(run: pathlib.Path, validation: Sequence[Any]) -> Predict:
    """With test-time augmentation, and settings chosen on validation."""
    settings = rows.script("dsb2018_instances_table")
    probabilities = inference.tta(segjax.load(run).probabilities)

    def maps(example: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return settings.maps_of(np.asarray(probabilities(example["image"][None]))[0])

    best, _ = inference.best_settings(
        [maps(example) for example in validation],
        lambda ids: settings.matching(ids, validation),
        settings.GRID,
    )
    return lambda example: inference.instances(*maps(example), best)


def by_detection(run: pathlib.Path, _: Any) -> Predict:
    """Detections with a score of at least 0.5, the most confident on top."""
    model = segjax.load(run)

    def predict(example: Mapping[str, Any]) -> np.ndarray:
        (found,) = model.detect(example["image"][None])
        order = np.argsort(-found.scores, kind="stable")
        return found.take(order[found.scores[order] >= 0.5]).id_map()

    return predict


PREDICTORS = {
    "unet": by_components,
    "watershed": by_watershed,
    "mask-rcnn": by_detection,
}


def figure(shown: Mapping[str, Ids], examples: Sequence[Any]) -> Image.Image:
    """Draws the images with the most errors: image, truth, and each row's nuclei.

    Args:
        shown: Ids of each image by row.
        examples: The images, of which those are drawn where the last row misses or
            invents the most nuclei.
    """
    last = list(shown.values())[-1]
    counts = [
        errors(ids, x["instances"]) for ids, x in zip(last, examples, strict=True)
    ]
    worst = np.argsort(-np.array(counts), kind="stable")[:SHOWN]
    heads = ("image", "truth", *shown)
    sheet = Image.new("RGB", (len(heads) * SIDE, 24 + len(worst) * SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(heads):
        draw.text((column * SIDE + 6, 4), name, "black", font_size=15)
    for line, number in enumerate(worst):
        example = examples[number]
        # Fluorescence is dark.
        bright = np.asarray(example["image"], np.float32)
        image = viz.to_rgb(bright, window=(0, 99.5))
        pictures = [image, viz.overlay_objects(image, example["instances"])]
        pictures += [viz.overlay_objects(image, ids[number]) for ids in shown.values()]
        for column, picture in enumerate(pictures):
            side = min(picture.shape[:2])
            square = Image.fromarray(picture[:side, :side]).resize((SIDE - 4, SIDE - 4))
            sheet.paste(square, (column * SIDE + 2, 24 + line * SIDE))
    return sheet.quantize(256)


def errors(ids: np.ndarray, truth: np.ndarray) -> float:
    """Missed and invented nuclei of an image, at an IoU of 0.5."""
    found = metrics.of_id_maps(metrics.Matching.from_batch, [ids], [truth]).compute()
    return found["fp@0.50"] + found["fn@0.50"]


if __name__ == "__main__":
    main()
