"""Augmentations: `(key, example) -> example`, pure JAX on one example.

The compiled train step maps them over the batch. An example has `image` float32
[H, W, K], preprocessed, `label` int32 [H, W] and `valid` bool [H, W]. If it has `masks`
bool [N, H, W], these are transformed too, `boxes` are recomputed from them, and
`object_mask` becomes False for objects without a pixel left. The maps
{name: [H, W, ...]} in `linear` and `nearest` are transformed too, by bilinear and
nearest-neighbor interpolation. Other entries are unchanged. All randomness comes from
the key, so a result does not depend on other examples in the batch.
"""

from segjax.data.augment.color import blur as blur
from segjax.data.augment.color import color_jitter as color_jitter
from segjax.data.augment.color import exposure as exposure
from segjax.data.augment.color import noise as noise
from segjax.data.augment.combine import compose as compose
from segjax.data.augment.combine import sometimes as sometimes
from segjax.data.augment.mirror import flip as flip
from segjax.data.augment.mirror import flip_vertical as flip_vertical
from segjax.data.augment.mirror import quarter_turn as quarter_turn
from segjax.data.augment.warp import elastic as elastic
from segjax.data.augment.warp import rotate as rotate
from segjax.data.augment.warp import scale_and_crop as scale_and_crop
