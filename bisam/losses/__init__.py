"""Tensors in, tensors out: the bounds of the 0-1 loss, cross-entropy above it and the surrogate below."""

from .bounds import Bound, Identity, NegLog, Tanh, heaviside
from .cross_entropy import CrossEntropy, zero_one
from .loss import Loss
from .surrogate import Surrogate, gap, margins

__all__ = ["Bound", "CrossEntropy", "Identity", "Loss", "NegLog", "Surrogate", "Tanh", "gap", "heaviside", "margins", "zero_one"]
