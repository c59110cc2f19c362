"""Inference with trained models."""

from segjax.inference.example_scores import (
    has_batch_statistics,
    make_example_losses,
    make_example_scores,
    ranked,
    score_examples,
)
from segjax.inference.model import SCRIPT, Model, NeedsCodeError, load
from segjax.inference.prediction import Prediction, confident_objects
from segjax.inference.predictor import Predictor, labels, make_predictor
from segjax.inference.reading import SUFFIXES, read_image

__all__ = [
    "SCRIPT",
    "SUFFIXES",
    "Model",
    "NeedsCodeError",
    "Prediction",
    "Predictor",
    "confident_objects",
    "has_batch_statistics",
    "labels",
    "load",
    "make_example_losses",
    "make_example_scores",
    "make_predictor",
    "ranked",
    "read_image",
    "score_examples",
]
