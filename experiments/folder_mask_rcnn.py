"""Mask R-CNN on your own images and objects.

    DIR/images/a.jpg   DIR/annotations.json      (COCO), or
    DIR/images/a.jpg   DIR/instances/a.png       (pixels are object numbers from 1)

    segjax import coco.pth --model maskrcnn_resnet50_fpn --out coco
    segjax train experiments/folder_mask_rcnn.py --source DIR --weights coco --run mine
    segjax predict mine NEW_IMAGES --out predictions

Images are not resized: anchors of 32 to 512 pixels suit objects of about that size. Use
`--anchors 8 16 32 64 128` for smaller objects, and `--upscale 2` for objects below
about 20 pixels. Without --weights, training is from scratch, which needs many images.
On a CPU, add --small.
"""

from segjax import cli
from segjax.experiments.mask_rcnn import experiment

if __name__ == "__main__":
    cli.run(experiment)
