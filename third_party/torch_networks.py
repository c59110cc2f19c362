"""The networks of the speed comparison in PyTorch, as its users write them.

Channels last, cuDNN's own choice of algorithms, autocast where a dtype below float32
is asked for. They have the layers of `segjax.models.UNet` and `FCN` with batch norm or
no norm; values are compared elsewhere (`torch_models.py`), only speed is here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Sequential):
    """(3x3 convolution, norm, relu), several times."""

    def __init__(
        self, inputs: int, width: int, *, convs: int = 2, norm: bool, padding: int = 1
    ):
        """Convolutions have a bias where there is no norm."""
        layers: list[nn.Module] = []
        for i in range(convs):
            channels = width if i else inputs
            layers.append(nn.Conv2d(channels, width, 3, padding=padding, bias=not norm))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net with transposed convolutions; logits of the input's size, or cropped."""

    def __init__(
        self,
        classes: int,
        widths: Sequence[int],
        *,
        norm: bool = True,
        padding: int = 1,
    ):
        """Padding 0 is the paper's."""
        super().__init__()
        *down, bottom = widths
        inputs = [3, *down]
        options = {"norm": norm, "padding": padding}
        self.down = nn.ModuleList(
            Block(a, b, **options) for a, b in zip(inputs, down, strict=False)
        )
        self.bottom = Block(down[-1], bottom, **options)
        above = [*down[1:], bottom]
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2)
            for a, b in zip(above, down, strict=True)
        )
        self.up = nn.ModuleList(Block(2 * b, b, **options) for b in down)
        self.head = nn.Conv2d(down[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, C, H, W]."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for i in reversed(range(len(self.up))):
            x = self.upsample[i](x)
            skip = skips[i]
            top, left = ((skip.shape[k] - x.shape[k]) // 2 for k in (2, 3))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.up[i](torch.cat([skip, x], dim=1))
        return self.head(x)


class FCN(nn.Module):
    """FCN-8s on a VGG body without norm."""

    def __init__(
        self,
        classes: int,
        widths: Sequence[int],
        convs: Sequence[int],
        head_width: int,
    ):
        """Dropout 0.5 in the head, as in the paper."""
        super().__init__()
        inputs = [3, *widths]
        self.stages = nn.ModuleList(
            Block(a, b, convs=n, norm=False)
            for a, b, n in zip(inputs, widths, convs, strict=False)
        )
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], head_width, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(head_width, head_width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(head_width, classes, 1),
        )
        self.skips = nn.ModuleList(nn.Conv2d(w, classes, 1) for w in widths[2:4])
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1)
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, C, H, W]."""
        pools = []
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2)
            pools.append(x)
        scores = self.head(x)
        for i in (3, 2):
            scores = self.upsample[i - 2](scores) + self.skips[i - 2](pools[i])
        return F.interpolate(
            scores, scale_factor=8, mode="bilinear", align_corners=False
        )
