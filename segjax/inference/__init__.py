"""Inference with trained models."""

from segjax.inference.arrays import as_image
from segjax.inference.calibration import fit_temperature
from segjax.inference.detection import (
    DetectFn,
    ensemble_objects,
    merge_objects,
    sliding_window_objects,
    tiled_objects,
    tta_objects,
)
from segjax.inference.example_scores import (
    has_batch_statistics,
    make_example_losses,
    make_example_scores,
    ranked,
    score_examples,
)
from segjax.inference.loading import SCRIPT, NeedsCodeError, load
from segjax.inference.members import PlannedFn, model_ensemble
from segjax.inference.model import Model
from segjax.inference.objects import Objects
from segjax.inference.prediction import Prediction, confident_objects
from segjax.inference.predictor import (
    NoMemoryError,
    Predictor,
    labels,
    make_predictor,
)
from segjax.inference.reading import (
    SUFFIXES,
    Page,
    image_size,
    pages_of,
    read_image,
)
from segjax.inference.transforms import (
    DIHEDRAL,
    FLIPS,
    Dihedral,
    PredictFn,
    disagreement,
    ensemble,
    entropy,
    pixel_entropy,
    temperature,
    tta,
)
from segjax.inference.watershed import Watershed, best_settings, instances
from segjax.inference.windows import (
    bands,
    constant_window,
    gaussian_window,
    sliding_window,
)

__all__ = [
    "DIHEDRAL",
    "FLIPS",
    "SCRIPT",
    "SUFFIXES",
    "DetectFn",
    "Dihedral",
    "Model",
    "NeedsCodeError",
    "NoMemoryError",
    "Objects",
    "Page",
    "PlannedFn",
    "PredictFn",
    "Prediction",
    "Predictor",
    "Watershed",
    "as_image",
    "bands",
    "best_settings",
    "confident_objects",
    "constant_window",
    "disagreement",
    "ensemble",
    "ensemble_objects",
    "entropy",
    "fit_temperature",
    "gaussian_window",
    "has_batch_statistics",
    "image_size",
    "instances",
    "labels",
    "load",
    "make_example_losses",
    "make_example_scores",
    "make_predictor",
    "merge_objects",
    "model_ensemble",
    "pages_of",
    "pixel_entropy",
    "ranked",
    "read_image",
    "score_examples",
    "sliding_window",
    "sliding_window_objects",
    "temperature",
    "tiled_objects",
    "tta",
    "tta_objects",
]
