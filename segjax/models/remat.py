"""Rematerialization: activations are recomputed instead of stored."""

import functools
from typing import Any, TypeVar, cast

import flax.linen as nn

from segjax.typing import Array

Block = TypeVar("Block", bound=nn.Module)


@functools.cache
def remat(block: type[Block]) -> type[Block]:
    """Wraps a block so that training stores only its input.

    The backward pass computes the block a second time, which saves memory for about the
    cost of one more forward pass:

        block = models.remat(models.layers.ConvBlock)
        models.UNet(2, block=block)
        models.FCN(2, block=block)
        body = models.resnet50(block=models.remat(models.Bottleneck))
        models.MaskRCNN(models.RoIHeads(2), body=body)

    Parameters, their names, values, gradients, running statistics and random numbers
    are those of the block itself, so checkpoints are interchangeable. Evaluation is not
    affected.

    On CPUs, XLA merges the second computation with the first, so that no memory is
    saved, unless the environment has
    `XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander`. See docs/speed.md.

    Args:
        block: A linen module that is called with one array and keywords, such as
            `layers.ConvBlock`, `resnet.BasicBlock` or `resnet.Bottleneck`.

    Returns:
        A subclass of `block`; the same class for the same block.

    Reference:
        Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016,
        arXiv:1604.06174.
    """

    class Remat(block):
        def __call__(self, x: Array, **options: Any) -> Any:
            # Options are not traced: `train` must be a Python bool.
            def run(self: Any, x: Array) -> Any:
                return block.__call__(self, x, **options)

            return nn.remat(run)(self, x)

    return cast(type[Block], Remat)
