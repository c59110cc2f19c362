"""A folder of images and instance maps as a data set."""

import dataclasses
import os
import sys

import numpy as np
import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base, files, masks, pairing, sources, splits
from segjax.data.builders.pairing import Pairing
from segjax.errors import UserError

_NEEDS = (
    "the folders images/ and instances/ (same stems; instances as PNGs whose pixels "
    "are object numbers, 0 for background), or train/, validation/ and test/ with "
    "these two folders in each"
)
_MAX_OBJECTS = np.iinfo(np.uint16).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source(splits.SplitOptions):
    pairing: Pairing = dataclasses.field(repr=False)
    class_name: str

    def digest(self) -> str:
        """Digests the files in use."""
        return self.pairing.key(self.tree)


def instance_folder(
    source: str | os.PathLike,
    *,
    class_name: str = "object",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    group: str | None = None,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Loads a folder of images and instance maps whose objects have one class.

        source/images/a.jpg   source/instances/a.png

    All pixels with the same number are one object, connected or not; 0 is background.
    Objects of several classes and overlapping objects need COCO annotations: see
    `coco`.

    Args:
        source: The folder, or a zip of it.
        class_name: Name of the objects' class.
        validation: Fraction of the images held out for validation, in [0, 1); used if
            there is no validation folder.
        test: Fraction held out for testing, likewise; ignored if there are split
            folders.
        seed: Chooses which images are held out.
        group: A regular expression whose matches in names are never in different
            splits; see `folder`.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Raises:
        ValueError: If a file is missing, broken or not of the size of its image; the
            message names it.
    """
    splits.check_fractions(validation, test)
    path = sources.existing(source, _NEEDS)
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    options = _Source(
        tree=tree,
        validation=validation,
        test=test,
        seed=seed,
        group=group,
        pairing=pairing.find(tree, pairing.INSTANCES, needs=_NEEDS),
        class_name=class_name,
    )
    directory = dataset.prepare(
        InstanceFolder, data_dir=data_dir, source=options, key=options.key()
    )
    return dataset.view(directory, "instance_folder")


class InstanceFolder(base.Builder, skip_registration=True):
    """Reads `images/*` and `instances/*`, or those in each split's folder."""

    VERSION = tfds.core.Version("2.0.0")
    DESCRIPTION = "A user's own images and instance maps."
    FEATURES = base.ANY_SEMANTIC | {"instances": base.PACKED}
    source: _Source

    def plan(self):
        """Pairs images with maps and assigns them to splits."""
        source = self.source
        pairs = source.pairing.splits(source.tree)
        if source.pairing.rule:
            print(f"note: {source.pairing.rule}", file=sys.stderr)
        has_splits = pairs.keys() != {"train"}
        return source.complete(pairs, test=0.0 if has_splits else source.test)

    def where(self, item, name):
        """Returns the path of the image."""
        del name
        return self.source.tree.shown(item.image)

    def make(self, item):
        """Reads one pair and renumbers its objects from 1 in ascending order."""
        tree = self.source.tree
        image = files.read_image(tree, item.image)
        ids = masks.read_ids(tree, item.mask, image, image_name=item.image)
        found, instances = np.unique(ids, return_inverse=True)
        if len(found) > _MAX_OBJECTS or found[0] < 0:
            raise UserError(
                f"{tree.shown(item.mask)} has {len(found)} different numbers, the "
                f"smallest {found[0]}: needed at most {_MAX_OBJECTS}, none negative; "
                f"renumber the objects."
            )
        instances = instances.reshape(ids.shape) + (found[0] > 0)
        return {
            "image": image,
            "label": (instances > 0).astype(np.uint8),
            "instances": instances.astype(np.uint16),
            "name": item.name,
        }

    def describe(self):
        """Returns the class names."""
        return {"classes": ("background", self.source.class_name)}
