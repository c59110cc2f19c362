"""Inference with trained models."""

from segjax.inference.example_scores import has_batch_statistics as has_batch_statistics
from segjax.inference.example_scores import make_example_losses as make_example_losses
from segjax.inference.example_scores import make_example_scores as make_example_scores
from segjax.inference.example_scores import ranked as ranked
from segjax.inference.example_scores import score_examples as score_examples
from segjax.inference.model import SCRIPT as SCRIPT
from segjax.inference.model import Model as Model
from segjax.inference.model import NeedsCodeError as NeedsCodeError
from segjax.inference.model import load as load
from segjax.inference.prediction import Prediction as Prediction
from segjax.inference.prediction import confident_objects as confident_objects
from segjax.inference.predictor import Predictor as Predictor
from segjax.inference.predictor import labels as labels
from segjax.inference.predictor import make_predictor as make_predictor
from segjax.inference.reading import SUFFIXES as SUFFIXES
from segjax.inference.reading import read_image as read_image
