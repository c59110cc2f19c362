"""Trained models at work."""

from segjax.inference.predict import labels as labels
from segjax.inference.predict import make_predictor as make_predictor
