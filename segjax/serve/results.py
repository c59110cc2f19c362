"""What the page shows of a prediction, as HTML and pictures, without gradio."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from segjax import inference, ops, viz

MAX_SIDE = 1600
"""Longer side of a picture on the page, in pixels; larger ones are shrunk to it."""
MIN_WIDTH = 512
"""Narrower pictures are enlarged to this by the browser, without smoothing."""
_MAX_OBJECTS = 200
"""Rows of the table of objects."""


@dataclasses.dataclass(frozen=True)
class Result:
    """HTML of one prediction.

    Attributes:
        overlay: The image under its mask; the mask has the class `segjax-mask`.
        mask: The mask alone.
        uncertainty: The map of `uncertainty`, as a picture.
        table: Classes with colors and areas, or objects with scores.
    """

    overlay: str
    mask: str
    uncertainty: str
    table: str


def describe(prediction: inference.Prediction, *, opacity: float | int) -> Result:
    """Describes a prediction.

    Args:
        prediction: Of `Model.predict` or `Artifact.predict`.
        opacity: Of the mask over the image at first, in [0, 1].
    """
    color, tinted = _colored(prediction)
    alpha = np.where(tinted, 255, 0).astype(np.uint8)
    photo = _image(viz.to_rgb(prediction.image), "image")
    layer = np.concatenate([color, alpha[..., None]], axis=-1)
    mask = _image(layer, "mask", style=f"opacity:{opacity}")
    shown = np.where(tinted[..., None], color, 0).astype(np.uint8)
    unsure = np.round(255 * uncertainty(prediction)).astype(np.uint8)
    tables = _classes if prediction.objects is None else _objects
    return Result(
        overlay=_stack(unsure.shape, photo, mask),
        mask=_stack(unsure.shape, _image(shown, "labels")),
        uncertainty=_stack(unsure.shape, _image(unsure, "uncertainty")),
        table=tables(prediction),
    )


def uncertainty(prediction: inference.Prediction) -> np.ndarray:
    """Computes how unsure a model is at each pixel: see `inference.entropy`.

    For detectors: the entropy of the largest product of a score and the mask's
    probability.

    Returns:
        float32 [H, W]. 0 is sure, 1 is undecided.
    """
    if prediction.objects is not None:
        scores, masks = prediction.objects["scores"], prediction.objects["masks"]
        found = np.max(masks * scores[:, None, None], axis=0, initial=0)[..., None]
        made = inference.pixel_entropy(found, multilabel=True)
    else:
        probs = np.asarray(prediction.probabilities, np.float32)
        made = inference.pixel_entropy(probs, multilabel=prediction.multilabel)
    return np.clip(np.asarray(made)[..., 0], 0, 1)


def _colored(prediction: inference.Prediction) -> tuple[np.ndarray, np.ndarray]:
    """The color of each pixel, uint8 [H, W, 3], and bool [H, W], where there is one."""
    labels = prediction.labels
    if prediction.objects is None:
        tinted = labels != ops.ignore_index(labels.dtype)
        if not prediction.multilabel:  # Class 0 is the background.
            tinted &= labels > 0
        return prediction.palette[np.where(tinted, labels, 0)], tinted
    colors = np.concatenate([np.zeros((1, 3), np.uint8), _object_colors(prediction)])
    return colors[labels], labels > 0


def _object_colors(prediction: inference.Prediction) -> np.ndarray:
    """uint8 [n, 3]: one color for each object that is drawn, in the order of labels."""
    assert prediction.objects is not None
    number = len(inference.confident_objects(prediction.objects)["scores"])
    return viz.palette(max(number, 1) + 1)[1 : number + 1]


def _classes(prediction: inference.Prediction) -> str:
    ids, counts = np.unique(prediction.labels, return_counts=True)
    rows = [
        (prediction.palette[i], prediction.classes[i], f"{n:,}", f"{n / total:.1%}")
        for i, n in zip(ids.tolist(), counts.tolist(), strict=True)
        if i < len(prediction.classes)
        for total in (prediction.labels.size,)
    ]
    return _table(("class", "area, pixels", "of the image"), rows)


def _objects(prediction: inference.Prediction) -> str:
    assert prediction.objects is not None
    found = inference.confident_objects(prediction.objects)
    colors = _object_colors(prediction)
    rows = []
    for i in range(min(len(found["scores"]), _MAX_OBJECTS)):
        left, top, right, bottom = (f"{edge:.0f}" for edge in found["boxes"][i])
        area = int((found["masks"][i] >= 0.5).sum())
        name = f"{i + 1}: {prediction.classes[found['classes'][i]]}"
        box = f"{left}, {top} to {right}, {bottom}"
        score = f"{found['scores'][i]:.2f}"
        rows.append((colors[i], name, score, f"{area:,}", box))
    more = len(found["scores"]) - len(rows)
    text = _table(("object", "score", "area, pixels", "box, x and y"), rows)
    hidden = len(prediction.objects["scores"]) - len(found["scores"])
    notes = [f"{more} more."] if more else []
    if hidden:
        notes.append(f"{hidden} more have a score below 0.5; they are in the download.")
    return text + "".join(f"<p>{note}</p>" for note in notes)


def _table(names: Sequence[str], rows: Sequence[tuple]) -> str:
    """A table whose first column has a swatch of a color; cells are escaped."""
    if not rows:
        return "<p>Nothing was found.</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = []
    for color, *cells in rows:
        swatch = "#" + bytes(color).hex()
        first, *others = (html.escape(cell) for cell in cells)
        tds = "".join(f"<td>{cell}</td>" for cell in others)
        body.append(
            f'<tr><td><span class="segjax-swatch" style="background:{swatch}"></span>'
            f"{first}</td>{tds}</tr>"
        )
    return f'<table class="segjax-table"><tr>{head}</tr>{"".join(body)}</table>'


def _stack(size: Sequence[int], *images: str) -> str:
    """Pictures of one size [H, W] on top of each other."""
    width = min(max(size[1], MIN_WIDTH), MAX_SIDE)
    return f'<div class="segjax-stack" style="width:{width}px">{"".join(images)}</div>'


def _image(pixels: np.ndarray, name: str, *, style: str = "") -> str:
    """An <img> whose PNG is in the page itself."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > MAX_SIDE:
        side = [max(1, round(n * MAX_SIDE / max(picture.size))) for n in picture.size]
        is_photo = name == "image"
        method = Image.Resampling.BOX if is_photo else Image.Resampling.NEAREST
        picture = picture.resize((side[0], side[1]), method)
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    rendering = "pixelated" if picture.width < MIN_WIDTH else "auto"
    return (
        f'<img class="segjax-{name}" alt="{name}" style="{style}" '
        f'data-rendering="{rendering}" src="data:image/png;base64,{data}">'
    )
