"""Tensors in, tensors out: the bounds of the 0-1 loss, cross-entropy above it and the surrogate below."""

from .bounds import Bound, Identity, NegLog, Tanh, heaviside
from .cross_entropy import CrossEntropy, zero_one
from .loss import Loss
from .rows import Rows, Task
from .surrogate import Surrogate, gap, margins
from .task import Binary, Multiclass

__all__ = [
    "Binary", "Bound", "CrossEntropy", "Identity", "Loss", "Multiclass", "NegLog", "Rows", "Surrogate", "Tanh", "Task", "gap", "heaviside",
    "margins", "zero_one",
]  # fmt: skip
