"""Sharpness-aware training as choices along independent axes: SAM, BiSAM and their relatives, for PyTorch."""

from .batch import Batch, Noise, held_buffers
from .bounds import NegLog, Tanh, step
from .geometry import L2, Adaptive, Lp
from .losses import CrossEntropy, zero_one
from .optimizer import SharpnessAware
from .radius import Constant
from .recipe import (
    A_BISAM_LOG,
    A_BISAM_TANH,
    ASAM,
    ASAM_ALL,
    BISAM_LOG,
    BISAM_TANH,
    RECIPES,
    SAM,
    SGD,
    Recipe,
    recipe,
)
from .surrogate import Surrogate, gap, margins
from .train import History, Run, fit

__version__ = "0.1.0"

__all__ = [
    "ASAM", "ASAM_ALL", "A_BISAM_LOG", "A_BISAM_TANH", "BISAM_LOG", "BISAM_TANH", "L2", "RECIPES", "SAM", "SGD",
    "Adaptive", "Batch", "Constant", "CrossEntropy", "History", "Lp", "NegLog", "Noise", "Recipe", "Run", "SharpnessAware", "Surrogate",
    "Tanh", "fit", "gap", "held_buffers", "margins", "recipe", "step", "zero_one",
]
