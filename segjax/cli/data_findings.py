"""What `segjax data show` says of a data set."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from segjax import viz
from segjax.planning.survey import Place, Seen, Survey

_RARE = 0.01
_NAMED = 3
_LETTERS = 24
_SIZES = 8


def report_of(
    found: Survey, *, settings: Sequence[tuple[str, str]] = ()
) -> viz.DataReport:
    """Makes the report without its pictures.

    Args:
        found: Of all splits.
        settings: What training would choose.
    """
    splits = list(found.splits)
    pixels = np.sum([one.pixels for one in found.seen], axis=0)
    labeled = max(int(pixels[:-1].sum()), 1)
    classes = [
        viz.ClassRow(
            name,
            float(pixels[c] / labeled),
            [
                sum(c in one.classes for one in found.seen if one.place.split == split)
                for split in splits
            ],
        )
        for c, name in enumerate(found.classes)
    ]
    kinds = Counter(one.kind for one in found.seen)
    channels = min(len(one.histogram) for one in found.seen)
    facts = [
        (split, f"{count:,} image{'s' * (count != 1)}")
        for split, (count, _) in found.splits.items()
    ]
    facts += [("pixels", kind) for kind in kinds]
    if any(one.objects is not None for one in found.seen):
        objects = [one.objects or 0 for one in found.seen]
        facts.append(("objects", f"{sum(objects):,}, {max(objects)} in an image"))
    return viz.DataReport(
        name=found.name,
        facts=facts,
        findings=findings(found, classes, int(pixels[-1]), labeled),
        splits=splits,
        classes=classes,
        sizes=_sizes(found),
        histograms=np.sum([one.histogram[:channels] for one in found.seen], axis=0),
        span=found.span,
        co_occurrence=found.co_occurrence,
        sections=[],
        settings=settings,
    )


def findings(
    found: Survey, classes: Sequence[viz.ClassRow], ignored: int, labeled: int
) -> list[str]:
    """Sentences about what may go wrong, the most serious first."""
    said = []
    for split, (count, read) in found.splits.items():
        if read < count:
            said.append(f"Of the {count:,} images of {split}, {read:,} were read.")
    said += _of_twins(found)
    said += _of_classes(found, classes)
    if found.empty:
        named = _names(found.empty)
        only = f"{found.classes[0]} alone" if found.classes else "no class"
        said.append(f"{_images(found.empty)} {only}: {named}.")
    if found.shifted:
        count = len(found.shifted)
        said.append(
            f"{count} {'mask fits' if count == 1 else 'masks fit'} the edges of the "
            f"image better when shifted: {_names(found.shifted)}. Look at them below."
        )
    if ignored > 0.5 * (ignored + labeled):
        share = 100 * ignored / (ignored + labeled)
        said.append(f"{share:.0f} % of the pixels are ignored.")
    kinds = Counter(one.kind for one in found.seen)
    if len(kinds) > 1:
        listed = ", ".join(f"{n} of {kind}" for kind, n in kinds.items())
        said.append(f"Images differ in dtype or channels: {listed}.")
    return said


def direction(shift: tuple[int, int]) -> str:
    """A shift in words: `4 pixels up, 2 right`."""
    down, right = shift
    parts = [
        f"{abs(n)} {word}"
        for n, word in (
            (down, "down" if down > 0 else "up"),
            (right, "right" if right > 0 else "left"),
        )
        if n
    ]
    first, *rest = parts or ["0"]
    number, _, word = first.partition(" ")
    return ", ".join([f"{number} pixels {word}".strip(), *rest])


def samples(found: Survey, count: int) -> list[Seen]:
    """Evenly spaced images, and at least one of each of the rarest classes."""
    spaced = np.linspace(0, len(found.seen) - 1, min(count, len(found.seen)))
    places = list(dict.fromkeys(round(x) for x in spaced))
    pixels = np.array([one.pixels[:-1] for one in found.seen])
    rarest = np.argsort(pixels.sum(0), kind="stable")[: count // 3]
    most = [int(pixels[:, c].argmax()) for c in rarest if pixels[:, c].any()]
    chosen = list(dict.fromkeys([*most, *places]))[:count]
    return [found.seen[i] for i in sorted(chosen)]


def _of_twins(found: Survey) -> list[str]:
    said = []
    if leaks := found.leaks:
        pair = leaks[0]
        sides = [found.seen[i].place for i in (pair.first, pair.second)]
        shown = " and ".join(map(_shown, sides))
        exact = sum(pair.exact for pair in leaks)
        said.append(
            f"{len(leaks)} {'image is' if len(leaks) == 1 else 'images are'} in two "
            f"splits ({exact} equal, {len(leaks) - exact} nearly): {shown}"
            f"{' and others' if len(leaks) > 1 else ''}. Scores on them are too good."
        )
    inside = len(found.twins) - len(leaks)
    if inside:
        said.append(
            f"{inside} {'pair' if inside == 1 else 'pairs'} of equal or nearly equal "
            f"images within a split."
        )
    return said


def _of_classes(found: Survey, classes: Sequence[viz.ClassRow]) -> list[str]:
    said = []
    for place, split in enumerate(found.splits):
        absent = [row.name for row in classes if not row.images[place]]
        if absent:
            said.append(f"No image of {split} has {', '.join(absent)}.")
    rare = [row for row in classes if 0 < row.share < _RARE]
    if rare:
        listed = ", ".join(f"{row.name} {100 * row.share:.2g} %" for row in rare)
        said.append(
            f"Rare classes: {listed} of the pixels. Class weights, a region loss such "
            f"as soft Dice, or images that are shrunk, help to learn them."
        )
    return said


def _sizes(found: Survey) -> viz.Table:
    common = found.sizes.most_common(_SIZES)
    rows = [[f"{width} x {height}", f"{n:,}"] for (height, width), n in common]
    rest = len(found.sizes) - len(common)
    if rest:
        left = len(found.seen) - sum(n for _, n in common)
        rows.append([f"{rest} other sizes", f"{left:,}"])
    return ("width x height", "images"), rows


def _images(some: Sequence[Seen]) -> str:
    return "1 image has" if len(some) == 1 else f"{len(some)} images have"


def _shown(place: Place) -> str:
    """Name and split; long names, such as digests, are cut."""
    name = place.name
    short = name if len(name) <= _LETTERS else f"{name[:_LETTERS]}..."
    return f"{short} ({place.split})"


def _names(some: Sequence[Seen]) -> str:
    names = [_shown(one.place) for one in some[:_NAMED]]
    more = len(some) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
