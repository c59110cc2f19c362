"""`segjax train --data` beside experiments written by hand, in the same time.

    python experiments/tables/own_data.py --camvid DIR --dsb2018 DIR

Writes CamVid and DSB2018 (fluorescence) as folders of images and masks, as a user has
them, trains on each for 15 minutes with the settings that follow from the images, and
the experiment of this repository with as many updates as take about as long. Trains
what is missing, and writes own_data.md and .csv beside this file, with the minutes that
each took. `--updates` are those of the experiments, for another machine.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import rows
from PIL import Image

import segjax
from segjax import data, errors

BY_HAND = {"camvid": "camvid_unet_efficientnet.py", "dsb2018": "dsb2018_unet.py"}
METRICS = {"camvid": "mean_iou", "dsb2018": "dice/nucleus"}
UPDATES = {"camvid": 800, "dsb2018": 2_200}
MINUTES = 15
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
    parser.add_argument(
        "--updates", type=int, nargs=2, default=[*UPDATES.values()], metavar="N"
    )
    given = parser.parse_args(args)
    if not any(getattr(given, name) for name in BY_HAND):
        parser.error("needs --camvid DIR, --dsb2018 DIR, or both")
    given.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, updates in zip(BY_HAND, given.updates, strict=True):
        if source := getattr(given, name):
            try:
                lines += compared(name, source, updates, given.runs, given.seed)
            except errors.UserError as error:
                parser.error(f"--{name}: {error}")
    rows.write_csv(given.out / "own_data.csv", HEADS, lines)
    path = given.out / "own_data.md"
    path.write_text("\n".join(rows.markdown(HEADS, lines)) + "\n")
    print(f"Written: {path}")


def compared(
    name: str, source: pathlib.Path, updates: int, runs: pathlib.Path, seed: int
) -> list[list[str]]:
    """Trains a data set both ways; two rows of the table."""
    folder = runs / f"{name}-folder"
    if not (folder / "classes.txt").exists():
        write_folder(getattr(data, name)(source), folder)
    script = rows.EXPERIMENTS / BY_HAND[name]
    ways = {
        "by hand": [str(script), "--source", str(source), "--steps", str(updates)],
        "from the images": ["--data", str(folder), "--minutes", str(MINUTES)],
    }
    made, best = [], None
    for way, flags in ways.items():
        run = runs / name / way.replace(" ", "-")
        trained([*flags, "--seed", str(seed)], run)
        (result,) = segjax.results(run)
        score = result[METRICS[name]]
        best = score if best is None else best
        shown = [x.replace(str(script), f"experiments/{script.name}") for x in flags]
        shown = ["DIR" if x in (str(source), str(folder)) else x for x in shown]
        cells = [
            name,
            way,
            METRICS[name],
            f"{score:.4f}",
            f"{result['seconds'] / 60:.1f}",
        ]
        command = shlex.join(["segjax", "train", *shown, "--seed", str(seed)])
        made.append([*cells, f"{score / best:.1%}", f"`{command}`"])
    return made


def trained(args: Sequence[str], run: pathlib.Path) -> None:
    """Trains a run, or goes on with it, unless it has its result."""
    if (run / "result.json").exists():
        return
    command = [*rows.SEGJAX, "train"]
    if (run / "run.json").exists():
        command += ["--resume", str(run)]
    else:
        command += [*args, "--run", str(run)]
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
