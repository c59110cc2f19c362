"""Pure array functions that the rest is built of."""

from segjax.ops.crop import center_crop as center_crop
from segjax.ops.digest import digest as digest
from segjax.ops.distance import distance_transform as distance_transform
from segjax.ops.image import to_float as to_float
from segjax.ops.nearest import two_nearest as two_nearest
from segjax.ops.pad import mirror_pad as mirror_pad
from segjax.ops.pad import round_up as round_up
from segjax.ops.pool import max_pool_2x2 as max_pool_2x2
from segjax.ops.resize import bilinear_kernel as bilinear_kernel
from segjax.ops.resize import depth_to_space as depth_to_space
from segjax.ops.resize import resize_bilinear as resize_bilinear
from segjax.ops.resize import resize_nearest as resize_nearest
from segjax.ops.resize import transposed_conv_2x2 as transposed_conv_2x2
from segjax.ops.resize import transposed_conv_4x4 as transposed_conv_4x4
from segjax.ops.select import argsort as argsort
from segjax.ops.select import kth_largest as kth_largest
from segjax.ops.skeleton import soft_skeleton as soft_skeleton
from segjax.ops.warp import inside as inside
from segjax.ops.warp import sample_bilinear as sample_bilinear
from segjax.ops.warp import sample_nearest as sample_nearest
