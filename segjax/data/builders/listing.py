"""Lists the image files of a source, and tells image folders from mask folders."""

import dataclasses
from collections.abc import Iterator, Sequence

from segjax.data.builders import files
from segjax.data.builders.sources import Tree
from segjax.errors import UserError

_MAX_DEPTH = 16


@dataclasses.dataclass(frozen=True)
class Words:
    """What folders and files are called, in lower case.

    Attributes:
        images: Names of folders of images.
        masks: Names of folders of masks.
        image_affixes: Words in the names of images.
        mask_affixes: Words in the names of masks.
    """

    images: Sequence[str]
    masks: Sequence[str]
    image_affixes: Sequence[str]
    mask_affixes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class File:
    """An image file in a tree.

    Attributes:
        name: With its folder.
        folder: Its folder, without the folder of images or masks.
        kind: The folder of images or masks that it is in; empty if there is none.
        stem: Without folder and suffix.
    """

    name: str
    folder: str
    kind: str
    stem: str

    @property
    def key(self) -> tuple[str, str]:
        """Folder and stem."""
        return self.folder, self.stem


def images_and_masks(
    tree: Tree, words: Words, *, needs: str
) -> tuple[list[File], list[File]]:
    """Lists the images and the masks of a source.

    Files beside folders of images and of masks are left out. Beside a folder of masks
    alone, all other files are images, in a folder of any name.

    Args:
        tree: The files.
        words: The names of folders.
        needs: The documented layout, for messages.

    Returns:
        Images and masks; no masks if there is no folder of masks, so that the images
        hold both.

    Raises:
        ValueError: If there is no image file, a folder of images or masks is empty, or
            there are two folders of masks.
    """
    kinds = [*words.images, *words.masks]
    found = [_file(name, kinds) for name in _walk(tree, "")]
    images = [file for file in found if file.kind.lower() in words.images]
    masks = [file for file in found if file.kind.lower() in words.masks]
    rest = [file for file in found if not file.kind]
    _check_empty(tree, images, masks, words)
    if not found:
        raise UserError(
            f"{tree.shown('')} holds no image: needed {needs}, with files ending in "
            f"{', '.join(files.IMAGE_SUFFIXES)}, got {got(tree)}."
        )
    for some in (images, masks):
        _check_one_folder(tree, some)
    if masks and not images:
        images = _in_one_folder(rest)
        if not images:
            raise UserError(
                f"{tree.shown('')} has masks and no images: needed {needs}, got "
                f"{got(tree)}; add images/."
            )
    return images or rest, masks


def _in_one_folder(some: Sequence[File]) -> list[File]:
    """Takes the folder that holds all files, if there is one, for that of images."""
    tops = {file.folder.partition("/")[0] for file in some}
    if len(tops) != 1 or "" in tops:
        return list(some)
    (kind,) = tops
    return [
        dataclasses.replace(file, folder=file.folder.partition("/")[2], kind=kind)
        for file in some
    ]


def _check_empty(
    tree: Tree, images: Sequence[File], masks: Sequence[File], words: Words
) -> None:
    """Raises a ValueError if there are images or masks, and an empty folder of both."""
    for some, names in ((images, words.images), (masks, words.masks)):
        there = [n for n in tree.folders("") if n.lower() in names]
        is_other = bool(images) and other_format(tree, images) is not None
        if there and not some and not is_other:
            few = [name.rpartition("/")[2] for name in tree.files(there[0])[:3]]
            raise UserError(
                f"{tree.shown(there[0])} holds no image: needed files ending in "
                f"{', '.join(files.IMAGE_SUFFIXES)}, got {', '.join(few) or 'nothing'}."
            )


def _check_one_folder(tree: Tree, some: Sequence[File]) -> None:
    """Raises a ValueError if there are two folders of images, or of masks."""
    first: dict[str, File] = {}
    for file in some:
        other = first.setdefault(file.folder, file)
        if other.kind != file.kind:
            one, two = (_place(f) for f in (other, file))
            raise UserError(
                f"{tree.shown(one)} and {two} can both be meant: needed one folder of "
                f"images and one of masks; move the other one away."
            )


def _place(file: File) -> str:
    parts = file.name.split("/")
    return "/".join(parts[: parts.index(file.kind) + 1])


def got(tree: Tree) -> str:
    """Lists the first folders and files of a source, for messages."""
    names = [f"{name}/" for name in tree.folders("")] + tree.files("")
    return ", ".join(names[:6]) or "nothing"


def other_format(tree: Tree, images: Sequence[File]) -> str | None:
    """Guesses the format of annotations that are not masks, for messages.

    Args:
        tree: The files.
        images: Its images.

    Returns:
        A format of `segjax data import`, or None.
    """
    top = tree.files("")
    places = ["", *tree.folders("")]
    inner = {x.rpartition("/")[2] for place in places for x in tree.folders(place)}
    if "annotations.xml" in top:
        return "cvat"
    if "labels" in inner and any(x.endswith((".yaml", ".yml")) for x in top):
        return "yolo"
    for folder, name in (("SegmentationClass", "voc"), ("gtFine", "cityscapes")):
        if folder in inner:
            return name
    first = images[0].name
    beside = f"{first.rpartition('.')[0]}.json"
    return "labelme" if beside in tree.files(first.rpartition("/")[0]) else None


def _walk(tree: Tree, folder: str) -> Iterator[str]:
    """Yields all image files below a folder, except those of runs."""
    if folder.count("/") >= _MAX_DEPTH:
        raise UserError(
            f"{tree.shown(folder)} is {_MAX_DEPTH} folders deep: needed fewer; remove "
            f"links from a folder to one that holds it."
        )
    yield from files.images(tree, folder)
    for inner in tree.folders(folder):
        if f"{inner}/run.json" not in tree.files(inner):
            yield from _walk(tree, inner)


def _file(name: str, kinds: Sequence[str]) -> File:
    *folders, last = name.split("/")
    kind = next((part for part in folders if part.lower() in kinds), "")
    if kind:
        folders.remove(kind)
    return File(name, "/".join(folders), kind, last.rpartition(".")[0])
