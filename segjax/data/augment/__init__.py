"""Augmentations: `(key, example) -> example`, pure JAX on one example.

The compiled train step maps them over the batch. An example has `image` float32
[H, W, K], preprocessed, `label` int32 [H, W] and `valid` bool [H, W]. Where it has
`masks` bool [N, H, W] they move along, `boxes` are found anew, and objects of which
nothing is left are no longer `object_mask`. The maps {name: [H, W, ...]} in `linear`
and `nearest` move along too, read between pixels or at the nearest one. What else it
has is passed on. Everything random comes from the key, so that a result depends on
neither the other examples nor their number.
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
