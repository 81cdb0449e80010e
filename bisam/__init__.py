"""Sharpness-aware training as choices along independent axes: SAM, BiSAM and their relatives, for PyTorch."""

from .batch import Batch, Noise, held_buffers
from .bounds import NegLog, Tanh, step
from .geometry import L2
from .losses import CrossEntropy, zero_one
from .optimizer import SharpnessAware
from .radius import Constant
from .recipe import BISAM_LOG, BISAM_TANH, RECIPES, SAM, SGD, Recipe, recipe
from .surrogate import Surrogate, gap, margins
from .train import History, Run, fit

__version__ = "0.1.0"

__all__ = [
    "BISAM_LOG", "BISAM_TANH", "L2", "RECIPES", "SAM", "SGD",
    "Batch", "Constant", "CrossEntropy", "History", "NegLog", "Noise", "Recipe", "Run", "SharpnessAware", "Surrogate",
    "Tanh", "fit", "gap", "held_buffers", "margins", "recipe", "step", "zero_one",
]
