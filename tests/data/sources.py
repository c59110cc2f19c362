"""Tiny sources in the layouts of the public data sets."""

import io
import zipfile

import numpy as np
import PIL.Image


def png(pixels, format="PNG"):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels)).save(buffer, format)
    return buffer.getvalue()


def write(root, files):
    """Writes {name: bytes} below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path, files):
    """Writes {name: bytes} into a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def image(rng, height=8, width=12):
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def leftovers(root):
    """Files left by a failed preparation."""
    return sorted(p.name for p in root.rglob("*")) if root.exists() else []
