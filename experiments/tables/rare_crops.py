"""Crops on pixels of rare classes: what they do for these classes on CamVid.

    python experiments/tables/rare_crops.py --source DIR

The pretrained U-Net, three seeds, the same number of updates: all crops drawn evenly,
and half of them placed on a pixel of a rare class. Both weight rare classes by 6, since
with a weight of 2 so few updates learn none of pole and bicyclist.

Trains what is missing and writes rare_crops.md, .csv, .tex and .png beside this file.
With --quick, runs take a fifth of the time, and the files are rare_crops-quick.*.
"""

import rows

SCRIPT = "camvid_unet_efficientnet.py"
RARE = ("pole", "sign", "pedestrian", "bicyclist")
SMALL = ("--batch-size", "4", "--size", "192", "192", "--rare", "6")
TABLE = rows.Table(
    name="rare_crops",
    rows=[
        rows.Row("even", SCRIPT, SMALL, steps=1_000),
        rows.Row("rare", SCRIPT, (*SMALL, "--rare-crops", "0.5"), steps=1_000),
    ],
    metrics=(*(f"iou/{name}" for name in RARE), "mean_iou"),
    seeds=(0, 1, 2),
    quick=(),
)

if __name__ == "__main__":
    rows.main(TABLE, __doc__)
