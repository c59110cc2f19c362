"""Cityscapes' fine annotations: label ids, mapped to the 19 classes of training."""

from segjax.data.builders.sources import Tree
from segjax.data.formats.items import Annotated, Item, image_files
from segjax.data.formats.masks_of_ids import IdMask
from segjax.errors import UserError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light",
    "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""In the order of their train ids."""

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each class; all others from 0 to 33 are ignored."""

_IMAGE, _LABEL = "_leftImg8bit", "_gtFine_labelIds"
_FOLDERS = {"train": "train", "val": "validation"}


def cityscapes(tree: Tree) -> Annotated:
    """Reads Cityscapes with fine annotations.

        source/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
        source/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png

    Label ids become train ids, as in the benchmark; ids that are not evaluated are
    ignored. The test split is left out, since its labels are not public.

    Args:
        tree: The files.

    Raises:
        ValueError: If there are no images, or one has no labels.

    Reference:
        Cordts et al., The Cityscapes dataset, CVPR 2016, arXiv:1604.01685.
    """
    known = {i: 255 for i in range(34)}
    known |= {label: i for i, label in enumerate(LABEL_IDS)}
    items = []
    for folder, split in _FOLDERS.items():
        images = image_files(tree, f"leftImg8bit/{folder}")
        labels = image_files(tree, f"gtFine/{folder}")
        for key, image in images.items():
            name = key.removeprefix(f"leftImg8bit/{folder}/").removesuffix(_IMAGE)
            label = labels.get(f"gtFine/{folder}/{name}{_LABEL}")
            if label is None:
                raise UserError(
                    f"{tree.shown(image)} has no labels: needed "
                    f"gtFine/{folder}/{name}{_LABEL}.png; unpack gtFine_trainvaltest."
                )
            make = IdMask(tree, label, image, known, "needed label ids, 0 to 33")
            items.append(Item(name, image, split, make))
    if not any(item.split == "train" for item in items):
        raise UserError(
            f"{tree.shown('')} has no leftImg8bit/train: needed leftImg8bit and gtFine "
            f"of Cityscapes, unpacked into one folder."
        )
    return Annotated(tree, CLASSES, tuple(items))
