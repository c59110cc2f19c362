"""Pictures of docs/tour.md, made by the code of the page.

A code block that defines `pictures`, {title: array}, or `curves`, {title: {x: y}}, is
followed by its picture.
"""

import pathlib
import re
from typing import Any

import matplotlib
import numpy as np

from docs.tools.pages import python_blocks

matplotlib.use("agg")
import matplotlib.pyplot as plt


def add_pictures(text: str, folder: pathlib.Path) -> str:
    """Runs every block in order, and returns the page with links to their pictures.

    Args:
        text: The Markdown of docs/tour.md.
        folder: Where the site's pages are; pictures go to its `tour/`.
    """
    (folder / "tour").mkdir(parents=True, exist_ok=True)
    names: dict[str, Any] = {"__name__": "tour"}
    for i, block in enumerate(python_blocks(text)):
        for kind in ("pictures", "curves"):
            names.pop(kind, None)
        exec(compile(block.source, f"docs/tour.md, block {i + 1}", "exec"), names)
        link = ""
        if "pictures" in names:
            path = f"tour/{i:02}.png"
            draw_pictures(names["pictures"], folder / path)
            link = f"\n![{', '.join(names['pictures'])}]({path})\n"
        elif "curves" in names:
            path = f"tour/{i:02}.svg"
            draw_curves(names["curves"], folder / path)
            link = f"\n![{', '.join(names['curves'])}]({path})\n"
        code = f"```python\n{block.source}```\n"
        assert text.count(code) == 1
        text = text.replace(code, code + link)
    return text


def draw_pictures(pictures: dict[str, Any], path: pathlib.Path) -> None:
    """Draws images in a row: [H, W] in shades, [H, W, 3] in colors."""
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(1.9 * len(pictures), 2.1),
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, image) in zip(axes[0], pictures.items(), strict=True):
        lowest = 0 if np.min(image) >= 0 else None
        axis.imshow(np.asarray(image), cmap="magma", vmin=lowest)
        axis.set_title(_wrapped(title), fontsize=8)
        axis.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(curves: dict[str, Any], path: pathlib.Path) -> None:
    """Draws {x: y} as lines."""
    figure, axis = plt.subplots(figsize=(4.6, 2), layout="constrained")
    for title, values in curves.items():
        axis.plot(list(values), list(values.values()), marker=".", label=title)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _wrapped(title: str) -> str:
    """The title in lines of at most about 24 characters."""
    return re.sub(r"(.{12,24}?) ", r"\1\n", title)
