"""Pairing of images with masks by name, in the layouts that people have.

Folders called `images`, `masks` and similar names may be at any depth, so that
`train/images/a.png`, `images/train/a.png` and `case1/images/a.png` all work. Without
such folders, masks are known by a word in their name, as in `a_image.png` and
`a_mask.png`, or by their format, as in `a.jpg` and `a.png`.
"""

import dataclasses
import difflib
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence

from segjax.data.builders import affixes, listing, single_folder
from segjax.data.builders.listing import File, Words
from segjax.data.builders.sources import Tree
from segjax.data.builders.splits import SPLITS
from segjax.errors import UserError

SEMANTIC = Words(
    images="images image imgs img photos photo pictures rgb".split(),
    masks="masks mask labels label annotations annotation gt groundtruth ground_truth "
    "segmentations segmentation seg targets target".split(),
    image_affixes="image img photo rgb sat orig original".split(),
    mask_affixes="mask masks label labels annotation annotations gt groundtruth "
    "ground_truth segmentation seg manual manual1 target".split(),
)
INSTANCES = dataclasses.replace(
    SEMANTIC,
    masks="instances instance".split(),
    mask_affixes="instances instance mask masks label labels".split(),
)
_DOCUMENTED = (({"images"}, {"masks"}), ({"images"}, {"instances"}))
"""Folders of images and masks that need no explanation."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        image: Name of the image's file in the tree.
        mask: Name of the mask's file.
        name: The image's folder and stem, without the folders of images and splits.
        split: "train", "validation" or "test"; empty if no folder says so.
    """

    image: str
    mask: str
    name: str
    split: str


@dataclasses.dataclass(frozen=True)
class Pairing:
    """All pairs of a source.

    Attributes:
        pairs: In the order of their names.
        rule: How they were paired, in one line; empty for the documented layout.
    """

    pairs: tuple[Pair, ...]
    rule: str

    def splits(self, tree: Tree) -> dict[str, list[Pair]]:
        """Returns the pairs by split; all as `train` if no folder names a split.

        Raises:
            ValueError: If some pairs are in no split, or none is in `train`.
        """
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.split, []).append(pair)
        if found.keys() == {""}:
            return {"train": found[""]}
        if "" in found:
            other = next(pair for pair in self.pairs if pair.split)
            raise UserError(
                f"{tree.shown(found[''][0].image)} is in no split folder, but "
                f"{other.image} is in one: needed all images in train/, validation/ "
                f"and test/, or none; move it."
            )
        if "train" not in found:
            raise UserError(
                f"{tree.shown('')} has {' and '.join(sorted(found))} but no train "
                f"folder: needed train/images and train/masks; add it."
            )
        return found

    def key(self, tree: Tree) -> str:
        """Digests the names and stamps of all files."""
        total = hashlib.sha256()
        for pair in self.pairs:
            for name in (pair.image, pair.mask):
                total.update(f"{name} {tree.stamp(name)}\n".encode())
        return total.hexdigest()


def find(tree: Tree, words: Words, *, needs: str) -> Pairing:
    """Pairs all images of a source with masks.

    Args:
        tree: The files.
        words: What folders and files of images and masks are called.
        needs: The documented layout, for messages.

    Raises:
        ValueError: If there are no images or no masks, a file has no counterpart, or
            there are several ways to pair them.
    """
    images, masks = listing.images_and_masks(tree, words, needs=needs)
    if masks:
        rule, pairs = _of_two_lists(tree, images, masks, words)
    else:
        rule, pairs = single_folder.pairs(tree, images, words, needs=needs)
    made = sorted((_pair(*pair) for pair in pairs), key=lambda p: (p.name, p.image))
    for one, two in itertools.pairwise(made):
        if (one.name, one.split) == (two.name, two.split):
            raise UserError(
                f"{tree.shown(one.image)} and {two.image} have the same name: needed "
                f"unique names in each split; rename one."
            )
    return Pairing(
        tuple(made), rule and f"paired {len(made)} images with masks: {rule}"
    )


def _of_two_lists(
    tree: Tree, images: Sequence[File], masks: Sequence[File], words: Words
) -> tuple[str, list[tuple[File, File]]]:
    """Pairs files of image folders with those of mask folders."""
    rules = [
        (one, two)
        for one in affixes.common(images, words.image_affixes)
        for two in affixes.common(masks, words.mask_affixes)
    ]
    sides = [
        (affixes.by_key(tree, images, i), affixes.by_key(tree, masks, m), i, m)
        for i, m in rules
    ]
    # The plain names first, so that they win.
    whole = [side for side in sides if side[0].keys() == side[1].keys()][:1]
    best = max(whole or sides, key=lambda side: len(side[0].keys() & side[1].keys()))
    left, right, one, two = best
    _check_counterparts(tree, left, right, two, masks)
    kinds = {f.kind for f in images}, {f.kind for f in masks}
    is_plain = not one.text and not two.text
    is_documented = is_plain and kinds in _DOCUMENTED
    rule = f"{_folder(images)}{one.shown()} -> {_folder(masks)}{two.shown()}"
    return "" if is_documented else rule, [(left[key], right[key]) for key in left]


def _folder(found: Sequence[File]) -> str:
    """Returns the name of the folder of all files; nothing if there are several."""
    kinds = {file.kind for file in found}
    return f"{kinds.pop()}/" if len(kinds) == 1 and "" not in kinds else ""


def _check_counterparts(
    tree: Tree,
    images: Mapping[tuple[str, str], File],
    masks: Mapping[tuple[str, str], File],
    mask_affix: affixes.Affix,
    listed: Sequence[File],
) -> None:
    for ours, theirs, kind in ((images, masks, "mask"), (masks, images, "image")):
        for key in sorted(ours.keys() - theirs.keys()):
            near = _nearest(key, theirs.keys() - ours.keys())
            hint = f" (the nearest is {theirs[near].name})" if near else ""
            name = mask_affix.name_for(key) if kind == "mask" else key[1]
            place = next(iter(theirs.values())).name.rpartition("/")[0]
            raise UserError(
                f"{tree.shown(ours[key].name)} has no {kind}: needed {name}.* in "
                f"{tree.shown(place)}{hint}; add or rename it, or remove the file."
            )


def _nearest(
    key: tuple[str, str], unpaired: Iterable[tuple[str, str]]
) -> tuple[str, str] | None:
    """Suggests a key with a similar stem, such as `a_mask` for `a`."""
    by_stem = {other[1]: other for other in sorted(unpaired)}
    longer = [stem for stem in by_stem if stem.startswith(key[1])]
    near = longer or difflib.get_close_matches(key[1], by_stem, n=1)
    return by_stem[near[0]] if near else None


def _pair(image: File, mask: File) -> Pair:
    parts = image.folder.split("/") if image.folder else []
    named = [part for part in parts if part.lower() in SPLITS]
    split = SPLITS[named[0].lower()] if named else ""
    if named:
        parts.remove(named[0])
    return Pair(image.name, mask.name, "/".join([*parts, image.stem]), split)
