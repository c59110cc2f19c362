"""Wrong masks of nuclei: how many of them `segjax inspect` ranks first.

    python experiments/tables/label_noise.py --source DIR

Of each run's training images 5 % have masks that are eroded, dilated, shifted or those
of another image. Trains what is missing, ranks the images of each run by their loss,
and writes label_noise.md and .csv beside this file: the share of wrong masks among the
first 5 % of the ranking, where 5 % would be chance. With --quick, runs take a fifth of
the time, and the files are label_noise-quick.*.
"""

import csv
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

import rows

SCRIPT = "dsb2018_mislabeled.py"
KINDS = ("eroded", "dilated", "shifted", "swapped")
SHARES = (0.05, 0.1, 0.2)
TABLE = rows.Table(
    name="label_noise",
    rows=[rows.Row(kind, SCRIPT, ("--kind", kind)) for kind in KINDS],
    metrics=("dice/nucleus",),
    seeds=(0, 1, 2),
    quick=("--steps", "160"),
)


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, ranks, and writes the table."""
    chosen = rows.options(TABLE, __doc__, args)
    made = rows.trained(TABLE, chosen)
    if not made:
        return
    found = {
        row.name: [found_first(rows.run_folder(chosen, row, s)) for s in chosen.seeds]
        for row in made
    }
    single = [
        [kind, seed, *(f"{recall:.4f}" for recall in recalls)]
        for kind, seeds in found.items()
        for seed, recalls in zip(chosen.seeds, seeds, strict=True)
    ]
    heads = ["masks", "seed", *(f"among first {share:g}" for share in SHARES)]
    rows.write_csv(rows.written(TABLE, chosen, ".csv"), heads, single)
    heads = ["masks", *(f"found among the first {share:.0%}" for share in SHARES)]
    means = [
        [kind, *(rows.mean_and_deviation(each) for each in zip(*seeds, strict=True))]
        for kind, seeds in found.items()
    ]
    lines = list(rows.markdown(heads, means))
    shown = shlex.join(rows.published_command(TABLE, chosen, made[0], "SEED"))
    lines += ["", f"`{shown}`, and `segjax inspect RUN --checkpoint last`.", ""]
    path = rows.written(TABLE, chosen, ".md")
    path.write_text("\n".join(lines))
    print(f"Written: {path}")


def found_first(run: pathlib.Path) -> list[float]:
    """Ranks a run's training images; shares of the wrong masks that come first."""
    ranking = run / "inspection-train-last.csv"
    if not ranking.exists():
        command = [*rows.SEGJAX, "inspect", str(run), "--checkpoint", "last"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    with ranking.open(newline="") as file:
        order = [int(row["index"]) for row in csv.DictReader(file)]
    wrong = set(wrong_masks(len(order)))
    return [
        len(wrong & set(order[: round(share * len(order))])) / len(wrong)
        for share in SHARES
    ]


def wrong_masks(images: int) -> list[int]:
    """Numbers of the training images whose masks the experiment alters."""
    made = rows.script("dsb2018_mislabeled").Mislabeled(range(images), "eroded", 0.05)
    return made.wrong.tolist()


if __name__ == "__main__":
    main()
