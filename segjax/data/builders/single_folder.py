"""Pairing of images with masks in one folder, by words in names or by formats."""

from collections.abc import Sequence

from segjax.data.builders import affixes, listing
from segjax.data.builders.listing import File, Words
from segjax.data.builders.sources import Tree
from segjax.errors import UserError


def pairs(
    tree: Tree, found: Sequence[File], words: Words, *, needs: str
) -> tuple[str, list[tuple[File, File]]]:
    """Pairs files that are all in the same folders, by words or formats.

    Args:
        tree: The files.
        found: Images and masks.
        words: What images and masks are called.
        needs: The documented layout, for messages.

    Returns:
        The rule, and the pairs of image and mask.

    Raises:
        ValueError: If there is no way to pair all of them, or several.
    """
    marks = affixes.carried(found, words.mask_affixes)
    ways: list[tuple[str, list[tuple[File, File]]]] = []
    for mark in marks:
        masks = [file for file in found if mark.fits(file.stem)]
        images = [file for file in found if not mark.fits(file.stem)]
        for one in affixes.common(images, words.image_affixes) if images else ():
            left, right = (
                affixes.by_key(tree, images, one),
                affixes.by_key(tree, masks, mark),
            )
            if left.keys() == right.keys():
                rule = f"{one.shown()} -> {mark.shown()}"
                ways.append((rule, [(left[key], right[key]) for key in left]))
    by_format = _by_format(found)
    if by_format:
        ways.append(("NAME.jpg -> NAME.png", by_format))
    if len(ways) > 1:
        raise UserError(
            f"{tree.shown('')} can be paired in {len(ways)} ways, {ways[0][0]} and "
            f"{ways[1][0]}: needed one; put images and masks into images/ and masks/."
        )
    if ways:
        return ways[0]
    raise UserError(_unpaired(tree, found, marks, words, needs))


def _by_format(found: Sequence[File]) -> list[tuple[File, File]]:
    """Pairs JPEG photographs with lossless files of the same stem, if all fit."""
    is_jpeg = [file.name.lower().endswith((".jpg", ".jpeg")) for file in found]
    photos = {f.key: f for f, jpeg in zip(found, is_jpeg, strict=True) if jpeg}
    others = {f.key: f for f, jpeg in zip(found, is_jpeg, strict=True) if not jpeg}
    whole = len(photos) + len(others) == len(found) and photos.keys() == others.keys()
    return [(photos[key], others[key]) for key in photos] if whole else []


def _unpaired(
    tree: Tree,
    found: Sequence[File],
    marks: Sequence[affixes.Affix],
    words: Words,
    needs: str,
) -> str:
    """Returns the message for files in one folder that cannot be paired."""
    if not marks:
        other = listing.other_format(tree, found)
        if other:
            return (
                f"{tree.shown('')} has {len(found)} images and no masks, but "
                f"annotations in the format {other}: needed {needs}; convert them by "
                f"segjax data import {other} {tree.shown('')} --out NEW_FOLDER."
            )
        return (
            f"{tree.shown('')} has {len(found)} images, such as {found[0].name}, and "
            f"no masks: needed {needs}, or names such as NAME_image and NAME_mask; got "
            f"{listing.got(tree)}."
        )
    for one in marks:
        for two in marks:
            ours = {one.key(f): f for f in found if one.fits(f.stem)}
            theirs = {two.key(f): f for f in found if two.fits(f.stem)}
            both = sorted(ours.keys() & theirs.keys()) if one != two else []
            if both:
                return (
                    f"{tree.shown(ours[both[0]].name)} and {theirs[both[0]].name} can "
                    f"both be the mask: needed one for each image; move the others "
                    f"to another folder."
                )
    plain = [file for file in found if not any(mark.fits(file.stem) for mark in marks)]
    mark = marks[0]
    masks = {mark.key(f): f for f in found if mark.fits(f.stem)}
    # With an image whose key no mask has, or else a mask whose key no image has.
    options = affixes.common(plain, words.image_affixes) if plain else [mark]
    one = max(options, key=lambda o: len({o.key(f) for f in plain} & masks.keys()))
    images = {one.key(f): f for f in plain}
    alone = sorted(images.keys() ^ masks.keys())[0]
    kind = "mask" if alone in images else "image"
    file = images.get(alone) or masks[alone]
    partner = (mark if alone in images else one).name_for(alone)
    return (
        f"{tree.shown(file.name)} has no {kind}: needed {partner}.*, as the other "
        f"{max(len(images), len(masks)) - 1} have; add it, or remove the file."
    )
