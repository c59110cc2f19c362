"""`segjax train --data` beside experiments written by hand, in the same time.

    python experiments/tables/own_data.py --camvid DIR --dsb2018 DIR

Writes CamVid and DSB2018 (fluorescence) as folders of images and masks, as a user has
them, and trains on each for 15 minutes with the settings that follow from the images.
The experiment of this repository then gets as many updates as fit into the time that
this took, evaluations included, at the speed of a run of 40 updates. Trains what is
missing, and writes own_data.md and .csv beside this file, with the minutes of each.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import rows
from PIL import Image

import segjax
from segjax import data, errors

BY_HAND = {"camvid": "camvid_unet_efficientnet.py", "dsb2018": "dsb2018_unet.py"}
METRICS = {"camvid": "mean_iou", "dsb2018": "dice/nucleus"}
MINUTES = 15
PILOT = 40  # Updates.
HEADS = ("data", "settings", "metric", "test", "minutes", "of those by hand", "command")


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in BY_HAND:
        parser.add_argument(f"--{name}", type=pathlib.Path, help="the folder of data")
    parser.add_argument("--runs", type=pathlib.Path, default="runs/own_data")
    parser.add_argument("--out", type=pathlib.Path, default=rows.EXPERIMENTS / "tables")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(args)
    if not any(getattr(given, name) for name in BY_HAND):
        parser.error("needs --camvid DIR, --dsb2018 DIR, or both")
    given.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in BY_HAND:
        if source := getattr(given, name):
            try:
                lines += compared(name, source, given.runs, given.seed)
            except errors.UserError as error:
                parser.error(f"--{name}: {error}")
    rows.write_csv(given.out / "own_data.csv", HEADS, lines)
    path = given.out / "own_data.md"
    path.write_text("\n".join(rows.markdown(HEADS, lines)) + "\n")
    print(f"Written: {path}")


def compared(
    name: str, source: pathlib.Path, runs: pathlib.Path, seed: int
) -> list[list[str]]:
    """Trains a data set both ways; two rows of the table."""
    folder = runs / f"{name}-folder"
    if not (folder / "classes.txt").exists():
        write_folder(getattr(data, name)(source), folder)
    more = ["--seed", str(seed)]
    planned = ["--data", str(folder), "--minutes", str(MINUTES), *more]
    trained(planned, runs / name / "from-the-images")
    script = rows.EXPERIMENTS / BY_HAND[name]
    by_hand = [str(script), "--source", str(source)]
    trained([*by_hand, "--steps", str(PILOT), *more], runs / name / "pilot")
    seconds = result_of(runs / name / "from-the-images")["seconds"]
    by_hand += ["--steps", str(updates_within(seconds, runs / name / "pilot")), *more]
    trained(by_hand, runs / name / "by-hand")
    made, best = [], None
    for way, args in (("by-hand", by_hand), ("from-the-images", planned)):
        result = result_of(runs / name / way)
        score, minutes = result[METRICS[name]], result["seconds"] / 60
        best = score if best is None else best
        shown = ["DIR" if x in (str(source), str(folder)) else x for x in args]
        shown = [x.replace(str(script), f"experiments/{script.name}") for x in shown]
        command = shlex.join(["segjax", "train", *shown])
        cells = [name, way.replace("-", " "), METRICS[name], f"{score:.4f}"]
        made.append([*cells, f"{minutes:.1f}", f"{score / best:.1%}", f"`{command}`"])
    return made


def updates_within(seconds: float, pilot: pathlib.Path) -> int:
    """How many updates fit, beside what a run takes that does not grow with them."""
    update = statistics.median(seconds_of_updates(pilot))
    constant = result_of(pilot)["seconds"] - PILOT * update
    return max(PILOT, round((seconds - constant) / update))


def seconds_of_updates(run: pathlib.Path) -> list[float]:
    """Seconds of an update, from each line of the log."""
    batch_size = json.loads((run / "run.json").read_text())["config"]["batch_size"]
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        batch_size / line["images_per_second"]
        for line in lines
        if line["kind"] == "train"
    ]


def result_of(run: pathlib.Path) -> dict[str, Any]:
    """The scores of a run's test, and its seconds, compilation included."""
    (result,) = segjax.results(run)
    return result


def trained(args: Sequence[str], run: pathlib.Path) -> None:
    """Trains a run, or goes on with it, unless it has its result."""
    if (run / "result.json").exists():
        return
    command = [*rows.SEGJAX, "train", *args, "--run", str(run)]
    if (run / "run.json").exists():
        command = [*rows.SEGJAX, "train", "--resume", str(run)]
    print(shlex.join(command), flush=True)
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"{run}: training failed; see above.")


def write_folder(dataset: data.Dataset, folder: pathlib.Path) -> None:
    """Writes images and masks, by split, and at last classes.txt."""
    for split, examples in dataset.splits.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(len(examples)):
            example, file = examples[number], f"{number:04d}.png"
            image, label = (np.asarray(example[key]) for key in ("image", "label"))
            Image.fromarray(image).save(folder / split / "images" / file)
            Image.fromarray(label).save(folder / split / "masks" / file)
    (folder / "classes.txt").write_text("\n".join(dataset.classes) + "\n")


if __name__ == "__main__":
    main()
