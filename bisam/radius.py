r"""How far the inner player may go: the radius :math:`\rho`."""

from __future__ import annotations

from dataclasses import dataclass

from . import _checks

__all__ = ["Constant"]


@dataclass(frozen=True)
class Constant:
    r"""One radius for the whole training.

    .. math:: \rho_t = \rho

    Args:
        rho: the radius, 0 or greater, in units of the weights. Zero turns every method into its base optimiser.

    Raises:
        TypeError, ValueError: ``rho`` is not a finite number, or below 0.

    Source:
        Foret et al. (2021), section 2.

    Example:
        >>> Constant(0.05).rho
        0.05
    """

    rho: float

    def __post_init__(self):
        _checks.nonnegative("rho", self.rho)
