"""Losses on the vessels of DRIVE: the same U-Net with seven losses, five seeds.

    python experiments/tables/drive.py --source DIR

Trains what is missing and writes drive.md, .csv, .tex and .png beside this file. With
--quick, runs take a fifth of the time, and the files are drive-quick.*.
"""

import rows

LOSSES = ("ce", "ce-dice", "focal", "tversky", "lovasz", "cldice", "boundary")
TABLE = rows.Table(
    name="drive",
    rows=[rows.Row(loss, "drive_unet.py", ("--loss", loss)) for loss in LOSSES],
    metrics=(
        "dice/vessel",
        "auc_roc/vessel",
        "cl_dice_per_image/vessel",
        "hd95_per_image/vessel",
    ),
    lower=("hd95_per_image/vessel",),
    seeds=(0, 1, 2, 3, 4),
    quick=("--steps", "300"),
    published=(
        "mmsegmentation, U-Net S5-D16, FCN head, 64x64 crops, 40,000 iterations: Dice "
        "78.67 with cross-entropy, 79.32 with cross-entropy and Dice (its "
        "configs/unet/README.md). It counts pixels outside the field of view too, "
        "where the truth is background.",
        "orobix, U-Net: AUC .9790 (its README).",
    ),
)

if __name__ == "__main__":
    rows.main(TABLE, __doc__)
