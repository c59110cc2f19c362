"""Trained models at work."""

from segjax.inference.detect import make_detector as make_detector
from segjax.inference.insight import has_batch_statistics as has_batch_statistics
from segjax.inference.insight import make_example_losses as make_example_losses
from segjax.inference.insight import make_example_scores as make_example_scores
from segjax.inference.insight import ranked as ranked
from segjax.inference.insight import score_examples as score_examples
from segjax.inference.predict import labels as labels
from segjax.inference.predict import make_predictor as make_predictor
