"""ADE20K's scene parsing benchmark: 150 classes, and 0 for all others."""

from segjax.data.builders.sources import Tree
from segjax.data.formats.items import Annotated, Item, image_files
from segjax.data.formats.masks_of_ids import IdMask
from segjax.errors import UserError
from segjax.files import limits, reading

_NAMES = "objectInfo150.txt"
_COUNT = 150
_FOLDERS = {"training": "train", "validation": "validation"}


def ade20k(tree: Tree) -> Annotated:
    """Reads ADEChallengeData2016.

        source/images/training/ADE_train_00000001.jpg
        source/annotations/training/ADE_train_00000001.png
        source/objectInfo150.txt (class names)

    The ids 1 to 150 become the classes 0 to 149; 0 is ignored, as in the benchmark.

    Args:
        tree: The files.

    Raises:
        ValueError: If there are no images, or one has no annotation.

    Reference:
        Zhou et al., Scene parsing through ADE20K dataset, CVPR 2017.
    """
    known = {0: 255} | {i + 1: i for i in range(_COUNT)}
    items = []
    for folder, split in _FOLDERS.items():
        labels = image_files(tree, f"annotations/{folder}")
        for key, image in image_files(tree, f"images/{folder}").items():
            name = key.removeprefix(f"images/{folder}/")
            label = labels.get(f"annotations/{folder}/{name}")
            if label is None:
                raise UserError(
                    f"{tree.shown(image)} has no annotation: needed "
                    f"annotations/{folder}/{name}.png; unpack ADEChallengeData2016.zip "
                    f"again."
                )
            make = IdMask(tree, label, image, known, "needed ids 0 to 150")
            items.append(Item(name, image, split, make))
    if not any(item.split == "train" for item in items):
        raise UserError(
            f"{tree.shown('')} has no images/training: needed ADEChallengeData2016, "
            f"unpacked."
        )
    return Annotated(tree, _classes(tree), tuple(items))


def _classes(tree: Tree) -> tuple[str, ...]:
    """Reads the names from objectInfo150.txt: their last column, the first synonym."""
    if _NAMES not in tree.files(""):
        return tuple(f"class {i + 1}" for i in range(_COUNT))
    where = tree.shown(_NAMES)
    content = tree.read(_NAMES, max_bytes=limits.TEXT_BYTES)
    rows = reading.decode_text(content, where).splitlines()[1:]
    # Columns are separated by tabs; names have spaces and commas.
    fields = [[x.strip() for x in row.split("\t")] for row in rows if row.strip()]
    if len(fields) != _COUNT or any(
        row[0] != str(i + 1) for i, row in enumerate(fields)
    ):
        raise UserError(
            f"{where} has {len(fields)} rows: needed the ids 1 to {_COUNT}; unpack it "
            f"again."
        )
    names = [row[-1].partition(",")[0].strip() for row in fields]
    # "door" and "screen" occur twice in the list.
    return tuple(
        n if names.count(n) == 1 else f"{n} {i}" for i, n in enumerate(names, 1)
    )
