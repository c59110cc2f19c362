"""The networks of the speed comparison in Flax, written in the obvious way.

What a reader of Flax's documentation writes: `nn.Conv`, `nn.BatchNorm`, `nn.max_pool`,
`nn.ConvTranspose`, `optax`'s cross-entropy, one jit. The layers are those of
`segjax.models`; what is faster there is faster than this.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class Block(nn.Module):
    """(3x3 convolution, norm, relu), several times."""

    features: int
    convs: int
    norm: bool
    padding: str
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, H, W, *] -> [B, H, W, features]."""
        for _ in range(self.convs):
            x = nn.Conv(
                self.features,
                (3, 3),
                padding=self.padding,
                use_bias=not self.norm,
                dtype=self.dtype,
            )(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
            x = nn.relu(x)
        return x


class UNet(nn.Module):
    """U-Net with transposed convolutions."""

    num_classes: int
    widths: Sequence[int]
    norm: bool = True
    padding: str = "SAME"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, H, W, 3] -> [B, H, W, C] logits, or cropped."""

        def block(width):
            return Block(width, 2, self.norm, self.padding, self.dtype)

        *down, bottom = self.widths
        skips, x = [], x.astype(self.dtype)
        for width in down:
            x = block(width)(x, train=train)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = block(bottom)(x, train=train)
        for width, skip in zip(reversed(down), reversed(skips), strict=True):
            x = nn.ConvTranspose(width, (2, 2), strides=(2, 2), dtype=self.dtype)(x)
            top, left = ((skip.shape[k] - x.shape[k]) // 2 for k in (1, 2))
            skip = skip[:, top : top + x.shape[1], left : left + x.shape[2]]
            x = block(width)(jnp.concatenate([skip, x], axis=-1), train=train)
        return nn.Conv(self.num_classes, (1, 1))(x)


class FCN(nn.Module):
    """FCN-8s on a VGG body without norm."""

    num_classes: int
    widths: Sequence[int]
    convs: Sequence[int]
    head_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, H, W, 3] -> [B, H, W, C] logits."""
        batch, height, width, _ = x.shape
        pools, x = [], x.astype(self.dtype)
        for features, convs in zip(self.widths, self.convs, strict=True):
            x = Block(features, convs, False, "SAME", self.dtype)(x, train=train)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
            pools.append(x)
        for size in (7, 1):
            x = nn.relu(nn.Conv(self.head_width, (size, size), dtype=self.dtype)(x))
            x = nn.Dropout(0.5)(x, deterministic=not train)
        scores = nn.Conv(self.num_classes, (1, 1))(x)
        for pool in (pools[3], pools[2]):
            scores = nn.ConvTranspose(self.num_classes, (4, 4), strides=(2, 2))(scores)
            scores = scores + nn.Conv(self.num_classes, (1, 1))(pool)
        shape = (batch, height, width, self.num_classes)
        return jax.image.resize(scores, shape, "bilinear")


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation
) -> Callable:
    """`(state, image uint8, label) -> (state, loss)`; state is a tuple."""

    @jax.jit
    def step(state, image, label):
        params, extra, opt_state, key = state
        key, dropout = jax.random.split(key)

        def loss_fn(params):
            logits, new = model.apply(
                {"params": params, **extra},
                image / jnp.float32(255),
                train=True,
                rngs={"dropout": dropout},
                mutable=list(extra),
            )
            labels = _cropped(label, logits.shape[1:3])
            loss = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), labels
            )
            return loss.mean(), new

        (loss, extra), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), extra, opt_state, key), loss

    return step


def _cropped(label, size):
    top, left = ((label.shape[k + 1] - size[k]) // 2 for k in (0, 1))
    return label[:, top : top + size[0], left : left + size[1]]
