"""Trained models as one file that runs without segjax."""

from segjax.export.artifact import Artifact, is_artifact, load
from segjax.export.onnx import save_onnx
from segjax.export.program import make_program
from segjax.export.stablehlo import save

__all__ = ["Artifact", "is_artifact", "load", "make_program", "save", "save_onnx"]
