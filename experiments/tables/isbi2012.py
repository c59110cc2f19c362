"""ISBI 2012, five folds: Dice and Rand scores of a U-Net on the slices held out.

    python experiments/tables/isbi2012.py --source DIR

Trains what is missing and writes isbi2012.md and .csv beside this file: the scores
after the last update, since the best checkpoint is chosen on the same slices. With
--quick, runs take a fifth of the time, and the files are isbi2012-quick.*.
"""

import json
import pathlib
import shlex
from collections.abc import Sequence

import rows

import segjax

SCRIPT = "isbi2012_unet.py"
METRICS = ("mean_dice", "dice/membrane", "dice/cell", "best_v_rand_per_image")
TABLE = rows.Table(
    name="isbi2012",
    rows=[rows.Row("unet", SCRIPT)],
    metrics=METRICS,
    seeds=(0, 1, 2, 3, 4),
    quick=("--steps", "160"),
    published=(
        "NVIDIA, U-Net Medical (TensorFlow 2), paper geometry, 6,400 batches of 8: "
        "Dice 0.8902, mean of five folds (its README).",
    ),
    each="--fold",
)


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table."""
    chosen = rows.options(TABLE, __doc__, args)
    if not rows.trained(TABLE, chosen):
        return
    row = TABLE.rows[0]
    runs = [rows.run_folder(chosen, row, fold) for fold in chosen.seeds]
    scores = [last_scores(run) for run in runs]
    heads = ("fold", *METRICS)
    values = [[found[metric] for metric in METRICS] for found in scores]
    cells = [
        [str(fold), *(f"{value:.4f}" for value in each)]
        for fold, each in zip(chosen.seeds, values, strict=True)
    ]
    means = [rows.mean_and_deviation(each) for each in zip(*values, strict=True)]
    lines = [*rows.markdown(heads, [*cells, ["mean ± std", *means]])]
    table = [[fold, *each] for fold, each in zip(chosen.seeds, values, strict=True)]
    rows.write_csv(rows.written(TABLE, chosen, ".csv"), heads, table)
    hours = sum(run["seconds"] for run in segjax.results(*runs)) / 3600
    shown = shlex.join(rows.published_command(TABLE, chosen, row, "K"))
    lines += ["", f"`{shown}` for K = 0 to 4: {hours:.1f} hours in all.", ""]
    lines += ["Published:", "", *(f"- {line}" for line in TABLE.published), ""]
    path = rows.written(TABLE, chosen, ".md")
    path.write_text("\n".join(lines))
    print(f"Written: {path}")


def last_scores(run: pathlib.Path) -> dict[str, float]:
    """The scores after the last update."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "eval"]
    return next(r for r in reversed(records) if not r.get("final"))


if __name__ == "__main__":
    main()
