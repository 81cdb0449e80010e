"""The step: two passes, and all that has to be put back after them. No other room writes weights, gradients or random states."""

from .batch import Batch
from .buffers import held_buffers
from .optimizer import SharpnessAware
from .record import Diagnostics
from .rng import RNGState

__all__ = ["Batch", "Diagnostics", "RNGState", "SharpnessAware", "held_buffers"]
