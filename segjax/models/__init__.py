"""Networks from images to logits, as linen modules."""

from segjax.models import layers as layers
from segjax.models.fcn import FCN as FCN
from segjax.models.simple_cnn import SimpleCNN as SimpleCNN
from segjax.models.summary import Summary as Summary
from segjax.models.summary import summarize as summarize
from segjax.models.unet import UNet as UNet
