"""Pure array functions used by losses, metrics, models and data."""

from segjax.ops.anchors import cell_anchors, pyramid_anchors
from segjax.ops.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    mask_iou,
    masks_to_boxes,
)
from segjax.ops.buckets import bucket_sizes
from segjax.ops.channels import add_bias, normalize_batch, normalize_groups
from segjax.ops.convolution import conv
from segjax.ops.crop import center_crop
from segjax.ops.depthwise import depthwise_conv
from segjax.ops.digest import digest
from segjax.ops.distance import distance_transform
from segjax.ops.fields import pack_fields, unpack_fields
from segjax.ops.image import (
    ClipWindow,
    Normalize,
    UnitRange,
    clip_window,
    normalize,
    to_float,
    unit_range,
    upsample_nearest,
)
from segjax.ops.labels import ignore_index, split_ignored
from segjax.ops.masks import crop_masks, paste_masks, paste_masks_on_host
from segjax.ops.matching import (
    Matches,
    match,
    match_every_object,
    sample_balanced,
    sample_balanced_masks,
)
from segjax.ops.nearest import two_nearest
from segjax.ops.nms import multiclass_nms, nms
from segjax.ops.pad import reflect_pad, round_up
from segjax.ops.pool import max_pool_2x2, max_pool_3x3, mean_pool
from segjax.ops.resize import (
    bilinear_kernel,
    depth_to_space,
    resize_bilinear,
    resize_nearest,
    transposed_conv_2x2,
    transposed_conv_4x4,
)
from segjax.ops.roi_adaptive import roi_align_adaptive
from segjax.ops.roi_align import multilevel_roi_align, roi_align, roi_levels
from segjax.ops.select import argsort, kth_largest
from segjax.ops.skeleton import soft_skeleton
from segjax.ops.warp import inside, sample_bilinear, sample_nearest

__all__ = [
    "ClipWindow",
    "Matches",
    "Normalize",
    "UnitRange",
    "add_bias",
    "argsort",
    "bilinear_kernel",
    "box_area",
    "box_iou",
    "bucket_sizes",
    "cell_anchors",
    "center_crop",
    "clip_boxes",
    "clip_window",
    "conv",
    "crop_masks",
    "decode_boxes",
    "depth_to_space",
    "depthwise_conv",
    "digest",
    "distance_transform",
    "encode_boxes",
    "ignore_index",
    "inside",
    "kth_largest",
    "mask_iou",
    "masks_to_boxes",
    "match",
    "match_every_object",
    "max_pool_2x2",
    "max_pool_3x3",
    "mean_pool",
    "multiclass_nms",
    "multilevel_roi_align",
    "nms",
    "normalize",
    "normalize_batch",
    "normalize_groups",
    "pack_fields",
    "paste_masks",
    "paste_masks_on_host",
    "pyramid_anchors",
    "reflect_pad",
    "resize_bilinear",
    "resize_nearest",
    "roi_align",
    "roi_align_adaptive",
    "roi_levels",
    "round_up",
    "sample_balanced",
    "sample_balanced_masks",
    "sample_bilinear",
    "sample_nearest",
    "soft_skeleton",
    "split_ignored",
    "to_float",
    "transposed_conv_2x2",
    "transposed_conv_4x4",
    "two_nearest",
    "unit_range",
    "unpack_fields",
    "upsample_nearest",
]
