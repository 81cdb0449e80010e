"""Sharpness-aware training as choices along independent axes: SAM, BiSAM and their relatives, for PyTorch."""

from . import _start  # isort: skip  before torch is imported
from .batch import Batch, Noise, held_buffers
from .bounds import NegLog, Tanh, step
from .combination import Decomposed, Look
from .diagnostics import Diagnostics
from .direction import Averaged, RandomStart
from .geometry import L2, Adaptive, Lp, Unnormalised
from .landscapes import Subspace, landscape, line_between, plane_through
from .losses import CrossEntropy, zero_one
from .masks import Masked, Only
from .optimizer import SharpnessAware
from .radius import ByLearningRate, Constant, Learned, LossBudget, Phase, Schedule
from .recipe import *  # noqa: F403  the rows of the table, listed there
from .recipe import __all__ as _rows
from .selection import MostSensitive, TopK
from .sharpness import (
    Flips,
    climb,
    loss_rise,
    m_sharpness,
    misclassified,
    spectral_density,
    top_eigenvalues,
    trace,
)
from .surrogate import Surrogate, gap, margins
from .train import History, Run, fit
from .variational import Handed, Posterior, Precision, Variational

_start.done()

__version__ = "0.1.0"

__all__ = [
    *_rows,
    "L2", "Adaptive", "Averaged", "Batch", "ByLearningRate", "Constant", "CrossEntropy", "Decomposed", "Diagnostics", "Flips", "Handed",
    "History", "Learned", "Look", "LossBudget", "Lp", "Masked", "MostSensitive", "NegLog", "Noise", "Only", "Phase", "Posterior",
    "Precision", "RandomStart", "Run", "Schedule", "SharpnessAware", "Surrogate", "Tanh", "TopK", "Unnormalised", "Variational", "climb",
    "fit", "gap", "held_buffers", "loss_rise", "m_sharpness", "margins", "misclassified", "spectral_density", "step", "top_eigenvalues",
    "trace", "zero_one",
    "Subspace", "landscape", "line_between", "plane_through",
]  # fmt: skip
