"""A page on 127.0.0.1 to try a trained model on."""

from segjax.serve.page import Limits, start
from segjax.serve.results import Result, describe

__all__ = ["Limits", "Result", "describe", "start"]
