"""Sharpness-aware training as choices along independent axes: SAM, BiSAM and their relatives, for PyTorch."""

from . import _start  # isort: skip  before torch is imported
from . import _moved, step
from .axes import (
    L2,
    Adaptive,
    Averaged,
    ByLearningRate,
    Constant,
    Decomposed,
    LookSAM,
    LossBudget,
    Lp,
    Masked,
    MostSensitive,
    Only,
    Phase,
    RandomStart,
    Recipe,
    Schedule,
    TopK,
)
from .losses import Binary, CrossEntropy, Multiclass, NegLog, Surrogate, Tanh
from .methods import (
    ASAM,
    BISAM_LOG,
    BISAM_TANH,
    ESAM,
    GSAM,
    LOOKSAM,
    RECIPES,
    SAM,
    SGD,
    Learned,
    Variational,
    recipe,
)
from .step import Batch, SharpnessAware

_start.done()

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022  by what they are for
    # the two lines of a training loop
    "Batch", "SharpnessAware",
    # what its logits mean
    "Multiclass", "Binary",
    # methods: rows of the table by name, those that people import, and the base that bSAM needs
    "RECIPES", "recipe", "SGD", "SAM", "ASAM", "ESAM", "GSAM", "LOOKSAM", "BISAM_LOG", "BISAM_TANH", "Variational",
    # what a row is made of, an axis a line: losses, geometry, radius, start and direction, selection, combination
    "Recipe",
    "CrossEntropy", "Surrogate", "NegLog", "Tanh",
    "L2", "Lp", "Adaptive", "Masked", "Only",
    "Constant", "Schedule", "ByLearningRate", "Phase", "LossBudget", "Learned",
    "RandomStart", "Averaged",
    "MostSensitive", "TopK",
    "Decomposed", "LookSAM",
]  # fmt: skip

__getattr__ = _moved.attribute  # names of version 0.1.0
step.__class__ = _moved.Room
