"""Drawing for formats whose masks are files of ids."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from segjax.data.builders import masks
from segjax.data.builders.sources import Tree
from segjax.data.formats.items import Drawn


@dataclasses.dataclass(frozen=True)
class IdMask:
    """Reads a mask file and maps its ids.

    Attributes:
        tree: Contains the file.
        name: The file.
        image: The image's file, for messages.
        known: Class id of each allowed id; 255 is ignored.
        fix: What to do about another id, for messages.
        instances: A file whose ids are objects: 0 and 255 are none; their class is
            that of the mask.
    """

    tree: Tree
    name: str
    image: str
    known: Mapping[int, int]
    fix: str
    instances: str | None = None

    def __call__(self, size: tuple[int, int]) -> Drawn:
        """Draws the mask; ValueError for another size or an unknown id."""
        like = np.broadcast_to(np.uint8(0), size)
        ids = masks.read_ids(self.tree, self.name, like, image_name=self.image)
        label = masks.to_labels(self.tree, self.name, ids, self.known, fix=self.fix)
        if self.instances is None:
            return Drawn(label, None)
        numbers = masks.read_ids(self.tree, self.instances, like, image_name=self.image)
        objects = []
        for number in np.unique(numbers).tolist():
            inside = numbers == number
            classes = np.bincount(label[inside & (label != 255)], minlength=1)
            if number not in (0, 255) and classes[1:].any():
                objects.append((int(classes[1:].argmax()) + 1, inside, False))
        return Drawn(label, objects)
