"""Networks from images to logits, as linen modules."""

from segjax.models import layers as layers
from segjax.models.simple_cnn import SimpleCNN as SimpleCNN
from segjax.models.unet import UNet as UNet
