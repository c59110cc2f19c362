"""Augmentations: `(key, example) -> example`, pure JAX on one example.

The compiled train step maps them over the batch. An example has `image` float32
[H, W, K], preprocessed, `label` int32 [H, W] and `valid` bool [H, W]. If it has `masks`
bool [N, H, W], these are transformed too, `boxes` are recomputed from them, and
`object_mask` becomes False for objects without a pixel left. The maps
{name: [H, W, ...]} in `linear` and `nearest` are transformed too, by bilinear and
nearest-neighbor interpolation. Other entries are unchanged. All randomness comes from
the key, so a result does not depend on other examples in the batch, except for `cutmix`
and `copy_paste`, which mix them.
"""

from segjax.data.augment.color import (
    color_jitter,
    exposure,
    gamma,
    gaussian_blur,
    gaussian_noise,
)
from segjax.data.augment.combine import compose, sometimes
from segjax.data.augment.flip import horizontal_flip, rotate90, vertical_flip
from segjax.data.augment.jpeg import jpeg_artifacts
from segjax.data.augment.mix import copy_paste, cutmix
from segjax.data.augment.warp import elastic, rotate, scale_and_crop

__all__ = [
    "color_jitter",
    "compose",
    "copy_paste",
    "cutmix",
    "elastic",
    "exposure",
    "gamma",
    "gaussian_blur",
    "gaussian_noise",
    "horizontal_flip",
    "jpeg_artifacts",
    "rotate",
    "rotate90",
    "scale_and_crop",
    "sometimes",
    "vertical_flip",
]
