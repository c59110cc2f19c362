"""Nuclei of DSB2018 with and without pretraining on ImageNet, three seeds.

    python experiments/tables/dsb2018_pretraining.py --source DIR

The U-Net with a watershed, whose settings are those of training, not chosen on
validation. Trains what is missing and writes dsb2018_pretraining.md, .csv, .tex and
.png beside this file. With --quick, runs take a fifth of the time, and the files are
dsb2018_pretraining-quick.*.
"""

import rows

SCRIPT = "dsb2018_unet_instances.py"
ENCODER = ("--encoder", "efficientnet-lite0", "--modality", "all")
CROPS = ("--batch-size", "8", "--size", "192")
TABLE = rows.Table(
    name="dsb2018_pretraining",
    rows=[
        rows.Row("scratch", SCRIPT, (*ENCODER, *CROPS), steps=1_500),
        rows.Row("pretrained", SCRIPT, (*ENCODER, "--pretrained", *CROPS), steps=1_500),
    ],
    metrics=("dsb2018_score@0.50", "dsb2018_score@0.75", "mean_dsb2018_score"),
    seeds=(0, 1, 2),
    quick=(),
)

if __name__ == "__main__":
    rows.main(TABLE, __doc__)
