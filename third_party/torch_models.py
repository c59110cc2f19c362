"""The same networks in PyTorch, written by us, to compare values with.

Every network takes an NCHW tensor and our parameters as nested dictionaries of NumPy
arrays, and returns NCHW logits. All is in float64, so that a difference is ours.
"""

import functools

import torch
import torch.nn.functional as F


def _tensor(x):
    return torch.from_numpy(x.copy()).double()


def conv(x, params, *, padding="same"):
    """Convolution; flax kernels are HWIO, those of PyTorch OIHW."""
    kernel = _tensor(params["kernel"]).permute(3, 2, 0, 1)
    bias = _tensor(params["bias"]) if "bias" in params else None
    return F.conv2d(x, kernel, bias, padding=padding)


def transposed(x, params, *, padding=0):
    """Stride 2; flax stores the kernel flipped, and input channels first."""
    kernel = _tensor(params["kernel"]).flip(0, 1).permute(2, 3, 0, 1)
    bias = _tensor(params["bias"]) if "bias" in params else None
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=padding)


def group_norm(x, params, stats, i):
    """Group norm with 8 groups; flax's epsilon."""
    params = params[f"GroupNorm_{i}"]
    return F.group_norm(
        x, 8, _tensor(params["scale"]), _tensor(params["bias"]), eps=1e-6
    )


def batch_norm(x, params, stats, i):
    """By running averages where `stats` has them, else by the batch."""
    params = params[f"BatchNorm_{i}"]
    scale, bias = _tensor(params["scale"]), _tensor(params["bias"])
    if not stats:
        return F.batch_norm(x, None, None, scale, bias, training=True)
    stats = stats[f"BatchNorm_{i}"]
    mean, var = _tensor(stats["mean"]), _tensor(stats["var"])
    return F.batch_norm(x, mean, var, scale, bias)


def no_norm(x, params, stats, i):
    """Nothing."""
    return x


def block(x, params, stats, norm, padding="same"):
    """(convolution, norm, relu), once for every convolution in `params`."""
    for i in range(sum(name.startswith("Conv_") for name in params)):
        x = conv(x, params[f"Conv_{i}"], padding=padding)
        x = F.relu(norm(x, params, stats, i))
    return x


def upsample_bilinear(x, factor):
    """Bilinear interpolation between pixel centers."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def bilinear(x, params):
    """Interpolation, then a 1x1 convolution."""
    return conv(upsample_bilinear(x, 2), params)


def _crop(x, like):
    top, left = ((x.shape[i] - like.shape[i]) // 2 for i in (2, 3))
    return x[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def simple_cnn(x, params):
    """Convolution, relu, convolution."""
    return conv(F.relu(conv(x, params["conv"])), params["head"])


def unet(x, params, stats=None, *, norm, upsample=transposed, padding="same"):
    """U-Net for inputs that halve without a rest."""
    stats = stats or {}
    run = functools.partial(block, norm=norm, padding=padding)
    scales = sum(name.startswith("down") for name in params)
    skips = []
    for i in range(scales):
        x = run(x, params[f"down{i}"], stats.get(f"down{i}"))
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x = run(x, params["bottom"], stats.get("bottom"))
    for i in reversed(range(scales)):
        x = upsample(x, params[f"upsample{i}"])
        x = torch.cat([_crop(skips[i], x), x], dim=1)
        x = run(x, params[f"up{i}"], stats.get(f"up{i}"))
    return conv(x, params["head"])


def fcn(x, params, *, stride):
    """FCN without norm, for inputs that the body divides."""
    pools = {}
    stages = sum(name.startswith("stage") for name in params)
    for i in range(1, stages + 1):
        x = F.max_pool2d(block(x, params[f"stage{i}"], None, no_norm), 2)
        pools[i] = x
    x = F.relu(conv(x, params["fc6"]))
    x = F.relu(conv(x, params["fc7"]))
    scores, at = conv(x, params["score"]), 2**stages
    while at > stride:
        at //= 2
        i = at.bit_length() - 1
        scores = F.pad(scores, (1, 1, 1, 1), mode="replicate")
        scores = transposed(scores, params[f"upscore{i}"], padding=3)
        scores = scores + conv(pools[i], params[f"score_pool{i}"])
    return upsample_bilinear(scores, stride)
