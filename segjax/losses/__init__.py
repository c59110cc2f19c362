"""Losses: `(logits, labels, valid, *, options) -> [B]`, one value an image."""

from segjax.losses.compose import semantic as semantic
from segjax.losses.pixel import cross_entropy as cross_entropy
from segjax.losses.pixel import focal as focal
from segjax.losses.region import soft_dice as soft_dice
