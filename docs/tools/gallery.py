"""Pictures of losses and metrics, drawn from the lines of docs/gallery.md.

The code block under each heading defines what is drawn: `objective`, an objective as in
`train.Experiment`; `metric`, a metric function, whose keys follow "Scores:"; or
`box_loss`.
"""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from scipy import ndimage

from docs.tools.pages import python_blocks, sections
from segjax import losses, metrics

matplotlib.use("agg")
import matplotlib.pyplot as plt

SIZE = 40
SHIFTS = np.arange(11)
CLASSES = ("background", "object")
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "segjax",
}


def truth() -> np.ndarray:
    """A disk, a line and a dot, [40, 40] bool."""
    y, x = np.mgrid[:SIZE, :SIZE]
    disk = (y - 13) ** 2 + (x - 12) ** 2 <= 8**2
    line = (np.abs(y - 32) <= 1) & (x >= 4) & (x <= 28)
    dot = (y - 8) ** 2 + (x - 31) ** 2 <= 2**2
    return disk | line | dot


def prediction() -> np.ndarray:
    """The example's prediction: moved, cut and with a spot too many, [40, 40] bool."""
    y, x = np.mgrid[:SIZE, :SIZE]
    disk = (y - 13) ** 2 + (x - 15) ** 2 <= 8**2
    line = (np.abs(y - 32) <= 1) & (x >= 4) & (x <= 15)
    spot = (y - 24) ** 2 + (x - 33) ** 2 <= 2**2
    return disk | line | spot


def logits_of(mask: np.ndarray) -> np.ndarray:
    """[40, 40, 2] float32 logits whose probability is 1/2 at the mask's outline."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    score = np.clip(1.5 * (inside - outside), -6, 6).astype(np.float32)
    return np.stack([-score / 2, score / 2], axis=-1)


def batch_of(count: int) -> dict[str, np.ndarray]:
    """The computed batch of `count` copies of the truth."""
    label = np.repeat(truth()[None].astype(np.int32), count, axis=0)
    return {
        "label": label,
        "valid": np.ones(label.shape, bool),
        "targets": np.eye(2, dtype=np.float32)[label],
        "weight": np.ones(count, np.float32),
        "index": np.arange(count, dtype=np.int32),
        "size": np.full((count, 2), SIZE, np.int32),
    }


def moved() -> np.ndarray:
    """[11, 40, 40, 2] logits of the truth, moved to the right by 0 to 10 pixels."""
    masks = []
    for shift in SHIFTS:
        mask = np.zeros_like(truth())
        mask[:, shift:] = truth()[:, : SIZE - shift]
        masks.append(logits_of(mask))
    return np.stack(masks)


def values_and_gradient(objective: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Values [11] of the moved predictions, and the gradient [40, 40] of the example.

    Args:
        objective: `(logits, batch) -> {name: [B]}`.

    Returns:
        The sum of the terms, and its derivative with respect to the object's logit.
    """
    logits = np.concatenate([moved(), logits_of(prediction())[None]])

    def total(logits):
        values = sum(objective(logits, batch_of(len(logits))).values())
        return jnp.sum(values), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(logits)
    return np.asarray(values[:-1]), np.asarray(gradient[-1, :, :, 1])


def scores_of(metric: Callable, keys: list[str]) -> dict[str, np.ndarray]:
    """{key: [11]} scores of the moved predictions."""
    compiled = jax.jit(metric)
    batch = batch_of(1)
    rows = []
    for logits in moved():
        state = jax.device_get(compiled(logits[None], batch))
        rows.append(metrics.with_batch(state, batch).compute())
    return {key: np.array([row[key] for row in rows]) for key in keys}


def box_losses(box_loss: Callable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts of a box, losses, and derivatives with respect to the shift, each [33]."""
    target = jnp.array([[[10.0, 10.0, 22.0, 20.0]]])
    shifts = np.linspace(0, 32, 33, dtype=np.float32)

    def loss(shift):
        box = target + jnp.array([1.0, 0.0, 1.0, 0.0]) * shift
        return box_loss(box, target, jnp.ones((1, 1), bool))[0][0]

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(shifts)
    return shifts, np.asarray(values), np.asarray(slopes)


def draw_example():
    """Truth and prediction side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(4.2, 2.1), layout="constrained")
    p = 1 / (1 + np.exp(-logits_of(prediction())[..., 1] * 2))
    for axis, image, title in zip(
        axes, (truth(), p), ("truth", "probability of the object"), strict=True
    ):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    return figure


def draw_loss(objective: Callable):
    """Gradient on the example, and value of moved predictions."""
    values, gradient = values_and_gradient(objective)
    figure, axes = plt.subplots(
        1, 2, figsize=(4.6, 1.9), layout="constrained", width_ratios=(1, 1.4)
    )
    limit = np.abs(gradient).max() or 1
    axes[0].imshow(gradient, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[0].contour(truth(), [0.5], colors="black", linewidths=0.6)
    axes[0].set_title("gradient")
    axes[0].axis("off")
    axes[1].plot(SHIFTS, values, marker=".", color="#0072b2")
    axes[1].set(xlabel="shift, pixels", title="value", xticks=SHIFTS[::2])
    return figure


def draw_box_loss(box_loss: Callable):
    """Value and derivative of the loss of a moved box."""
    shifts, values, slopes = box_losses(box_loss)
    figure, axes = plt.subplots(1, 2, figsize=(4.6, 1.9), layout="constrained")
    axes[0].plot(shifts, slopes, color="#d55e00")
    axes[0].set(xlabel="shift, pixels", title="gradient")
    axes[1].plot(shifts, values, color="#0072b2")
    axes[1].set(xlabel="shift, pixels", title="value")
    for axis in axes:
        axis.axvline(12, color="gray", linewidth=0.6, linestyle=":")
    axes[1].text(12.5, values.min(), "boxes part", color="gray", fontsize=7)
    return figure


def draw_metric(metric: Callable, keys: list[str]):
    """Scores of moved predictions."""
    figure, axis = plt.subplots(figsize=(4.6, 1.9), layout="constrained")
    for key, values in scores_of(metric, keys).items():
        axis.plot(SHIFTS, values, marker=".", label=key)
    axis.set(xlabel="shift, pixels", xticks=SHIFTS[::2])
    axis.legend(frameon=False, fontsize=7)
    return figure


def defined(body: str) -> dict[str, Any]:
    """What the code block of a section defines."""
    (block,) = python_blocks(body)
    names: dict[str, Any] = {
        "functools": functools,
        "losses": losses,
        "metrics": metrics,
        "classes": CLASSES,
    }
    exec(block.source, names)
    return names


def draw(body: str):
    """The picture of a section, or None if it has numbers only."""
    names = defined(body)
    if "objective" in names:
        return draw_loss(names["objective"])
    if "box_loss" in names:
        return draw_box_loss(names["box_loss"])
    if "metric" in names:
        (line,) = re.findall(r"^Scores: (.*)$", body, re.M)
        return draw_metric(names["metric"], re.findall(r"`([^`]+)`", line))
    return None


def add_pictures(text: str, folder: pathlib.Path) -> str:
    """Draws every picture of the page, and returns the page with links to them.

    Args:
        text: The Markdown of docs/gallery.md.
        folder: Where the site's pages are; pictures go to its `gallery/`.
    """
    (folder / "gallery").mkdir(parents=True, exist_ok=True)

    def saved(figure, name: str, caption: str) -> str:
        path = folder / "gallery" / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        return f"![{caption}](gallery/{name}.svg)\n\n"

    with plt.rc_context(STYLE):
        link = saved(draw_example(), "example", "Truth, and the example's prediction")
        text = text.replace("<!-- picture: example -->\n\n", link)
        for name, body in sections(text).items():
            if (figure := draw(body)) is not None:
                kind = "scores" if "Scores:" in body else "gradient and value"
                link = saved(figure, name, f"{name}: {kind}")
                new = body.replace("```python", f"{link}```python")
                text = text.replace(f"### {name}\n{body}", f"### {name}\n{new}")
    return text
