"""Pure array functions that the rest is built of."""

from segjax.ops.crop import center_crop as center_crop
from segjax.ops.image import to_float as to_float
