"""The step: two passes, and all that has to be put back after them. No other room writes weights, gradients or random states."""

from .batch import Batch, Noise, held_buffers
from .optimizer import SharpnessAware
from .record import Diagnostics

__all__ = ["Batch", "Diagnostics", "Noise", "SharpnessAware", "held_buffers"]
