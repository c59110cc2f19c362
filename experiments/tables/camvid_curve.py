"""CamVid from few images: pretrained and from scratch, as a learning curve.

    python experiments/tables/camvid_curve.py --source DIR

Trains a U-Net with EfficientNet-Lite0 on 5 to 100 % of the training images, with the
same number of updates, and writes camvid_curve.md, .csv and .png beside this file. With
--quick, runs take a fifth of the time, and the files are camvid_curve-quick.*.
"""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import rows

import segjax

SCRIPT = "camvid_unet_efficientnet.py"
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
STARTS = {"pretrained on ImageNet": "--pretrained", "from scratch": "--no-pretrained"}
TABLE = rows.Table(
    name="camvid_curve",
    rows=[
        rows.Row(
            f"{flag.removeprefix('--')}-{share:g}",
            SCRIPT,
            (flag, "--share", f"{share:g}"),
            steps=600,
        )
        for share in SHARES
        for flag in STARTS.values()
    ],
    metrics=("mean_iou",),
    seeds=(0, 1, 2),
    quick=(),
)


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table and the figure."""
    chosen = rows.options(TABLE, __doc__, args)
    made = rows.trained(TABLE, chosen)
    if not made:
        return
    found = {
        row.name: [
            run["mean_iou"]
            for run in segjax.results(
                *(rows.run_folder(chosen, row, seed) for seed in chosen.seeds)
            )
        ]
        for row in made
    }
    single = [
        [row, seed, f"{score:.4f}"]
        for row, scores in found.items()
        for seed, score in zip(chosen.seeds, scores, strict=True)
    ]
    rows.write_csv(
        rows.written(TABLE, chosen, ".csv"), ["row", "seed", "mean_iou"], single
    )
    draw(found, rows.written(TABLE, chosen, ".png"))
    path = rows.written(TABLE, chosen, ".md")
    path.write_text("\n".join([*rows.about_rows(TABLE, chosen, made), ""]))
    print(f"Written: {path}")


def draw(found: Mapping[str, Sequence[float]], path: pathlib.Path) -> None:
    """Draws mean and standard deviation of the test scores against the share."""
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for label, flag in STARTS.items():
        names = {share: f"{flag.removeprefix('--')}-{share:g}" for share in SHARES}
        shares = [share for share in SHARES if names[share] in found]
        scores = [found[names[share]] for share in shares]
        axis.errorbar(
            [100 * share for share in shares],
            [np.mean(each) for each in scores],
            [np.std(each, ddof=1) if len(each) > 1 else 0 for each in scores],
            label=label,
            marker="o",
            capsize=3,
        )
    axis.set_xscale("log")
    axis.set_xticks([100 * share for share in SHARES])
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axis.xaxis.set_minor_locator(plt.NullLocator())
    axis.set(xlabel="training images used", ylabel="mean IoU, test")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
