"""How sharp a minimum is: worst points, curvature, flips and landscapes."""

from .landscapes import Subspace, landscape, line_between, plane_through
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

__all__ = [
    "Flips", "Subspace", "climb", "landscape", "line_between", "loss_rise", "m_sharpness", "misclassified", "plane_through",
    "spectral_density", "top_eigenvalues", "trace",
]  # fmt: skip
