"""A network that sees the image at a coarser scale."""

from typing import Any

import flax.linen as nn
from jaxtyping import Float

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers
from segjax.typing import Array, Image


class Shrunk(nn.Module):
    """A semantic model on an image that is shrunk by a whole factor.

    The image is averaged over blocks of factor x factor pixels, and the logits are
    enlarged bilinearly to the image's size. So labels, metrics and predictions stay at
    the size of the image, while the network takes less time and memory by the square
    of the factor, and every pixel sees more of its surroundings.

    Attributes:
        model: A semantic model without margin. Its variables have the names that they
            have without this module.
        factor: Pixels per pixel of the network's image, in each direction; at least 1.
    """

    model: Any
    factor: int

    def setup(self) -> None:
        """Gives the model's variables their own names."""
        nn.share_scope(self, self.model)

    def __call__(self, image: Image, *, train: bool = False) -> Float[Array, "b y x c"]:
        """[B, H, W, K] of any size -> [B, H, W, C] logits.

        An incomplete last block is completed by reflection.

        Raises:
            ValueError: If the factor is below 1, or the model has a margin.
        """
        layers.check_image(image)
        if self.factor < 1 or getattr(self.model, "margin", 0):
            raise UserError(
                f"Shrunk needs a factor of at least 1 and a model without margin, got "
                f"{self.factor} and {type(self.model).__name__} with a margin of "
                f"{getattr(self.model, 'margin', 0)}. Use padding='same'."
            )
        height, width = image.shape[1:3]
        size = [ops.round_up(side, self.factor) for side in (height, width)]
        small = ops.mean_pool(ops.reflect_pad(image, (size[0], size[1])), self.factor)
        logits = self.model(small, train=train)
        large = ops.resize_bilinear(logits, (size[0], size[1]))
        return large[:, :height, :width]
