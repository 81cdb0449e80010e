"""Sharpness-aware training as choices along independent axes: SAM, BiSAM and their relatives, for PyTorch."""

from . import _start  # isort: skip  before torch is imported
from .axes.combination import Decomposed, Look
from .axes.direction import Averaged, RandomStart
from .axes.geometry import L2, Adaptive, Lp, Unnormalised
from .axes.masks import Masked, Only
from .axes.radius import ByLearningRate, Constant, Learned, LossBudget, Phase, Schedule
from .axes.recipe import Recipe
from .axes.selection import MostSensitive, TopK
from .losses.bounds import NegLog, Tanh, heaviside
from .losses.cross_entropy import CrossEntropy, zero_one
from .losses.surrogate import Surrogate, gap, margins
from .methods.bsam import Handed, Posterior, Precision, Variational
from .methods.table import *  # noqa: F403  the rows of the table, listed there
from .methods.table import __all__ as _rows
from .step.batch import Batch, Noise, held_buffers
from .step.optimizer import SharpnessAware
from .step.record import Diagnostics

_start.done()

__version__ = "0.1.0"

__all__ = [
    *_rows,
    "L2", "Adaptive", "Averaged", "Batch", "ByLearningRate", "Constant", "CrossEntropy", "Decomposed", "Diagnostics", "Handed",
    "Learned", "Look", "LossBudget", "Lp", "Masked", "MostSensitive", "NegLog", "Noise", "Only", "Phase", "Posterior",
    "Precision", "RandomStart", "Recipe", "Schedule", "SharpnessAware", "Surrogate", "Tanh", "TopK", "Unnormalised", "Variational",
    "gap", "held_buffers", "heaviside", "margins", "zero_one",
]  # fmt: skip
