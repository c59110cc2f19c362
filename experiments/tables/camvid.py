"""CamVid, 11 classes: pretrained and from scratch, three seeds, class by class.

    python experiments/tables/camvid.py --source DIR

Trains what is missing and writes camvid.md, .csv, .tex and .png beside this file. With
--quick, runs take a fifth of the time, and the files are camvid-quick.*.
"""

import rows

from segjax.data.builders.camvid import CLASSES

ENCODER = "camvid_unet_efficientnet.py"
TABLE = rows.Table(
    name="camvid",
    rows=[
        rows.Row("efficientnet-scratch", ENCODER, ("--no-pretrained",)),
        rows.Row("efficientnet-pretrained", ENCODER, ("--pretrained",)),
    ],
    metrics=("mean_iou", *(f"iou/{name}" for name in CLASSES)),
    seeds=(0, 1, 2),
    quick=("--steps", "400"),
    published=(
        "FCN-8s 57.0, SegNet 46.4 to 60.1, ENet 51.3 to 52.1, FC-DenseNet103 66.9 mean "
        "IoU (tables of the Tiramisu and SegNet papers).",
        "U-Net 49.8 (a public PyTorch reimplementation, split not stated).",
    ),
)

if __name__ == "__main__":
    rows.main(TABLE, __doc__)
