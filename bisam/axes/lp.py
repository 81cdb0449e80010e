"""The balls of the p-norms other than the Euclidean one."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from torch import Tensor

from .. import _checks
from .._kinds import kind
from .geometry import Ball
from .tensors import Tensors, p_norm, scaled

__all__ = ["Lp"]


@kind("Lp")
@dataclass(frozen=True)
class Lp(Ball):
    r"""The ball of a p-norm over all parameters at once.

    .. math::
        \epsilon = \rho\,\frac{\operatorname{sign}(g)\,|g|^{q-1}}{\big(\|g\|_q^q\big)^{1/p}}, \qquad
        \tfrac1p + \tfrac1q = 1, \qquad \langle g, \epsilon\rangle = \rho\,\|g\|_q

    At p = inf this is the sign step :math:`\rho\operatorname{sign}(g)`, the fast gradient sign method in weight space;
    at p = 1 all of the radius goes to the largest entry, or is shared by those that tie for it. Radii of different
    p are not comparable.

    Args:
        p: exponent, 1 or greater; ``math.inf`` for the box.

    Raises:
        TypeError, ValueError: ``p`` is not a number, or below 1.

    Source:
        Foret et al. (2021), eq. 2.

    Example:
        >>> import torch
        >>> g = {"w": torch.tensor([3.0, -4.0])}
        >>> Lp(math.inf).perturbation(g, weights=g, rho=0.5)
        {'w': tensor([ 0.5000, -0.5000])}
        >>> Lp(1).perturbation(g, weights=g, rho=0.5)
        {'w': tensor([ 0.0000, -0.5000])}
    """

    p: float = 2.0

    def __post_init__(self):
        if isinstance(self.p, numbers.Real) and not self.p >= 1:
            raise ValueError(f"p must be 1 or greater, math.inf included; got {_checks.shown(self.p)}")
        if isinstance(self.p, numbers.Real) and self.p == math.inf:
            object.__setattr__(self, "p", math.inf)
        else:
            _checks.keep(self, _checks.real, "p")

    @property
    def q(self) -> float:
        """The exponent of the dual norm, q = p / (p - 1)."""
        if self.p == 1:
            return math.inf
        return 1.0 if self.p == math.inf else self.p / (self.p - 1)

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The norm that the ball is made of, :math:`\|\epsilon\|_p`, a scalar on the device."""
        return p_norm(perturbation, self.p)

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball, :math:`\|g\|_q`, a scalar."""
        return p_norm(gradient, self.q)

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` of p-norm rho that the gradient points to; zero where the gradient is zero.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            rho: radius of the ball, 0 or greater, in units of the weights.
            dual_norm: not needed here.
        """
        largest = p_norm(gradient, math.inf)
        if self.p == 1:  # compared, not divided: x * (1 / x) is not always 1
            shares = {name: (g.abs() == largest).to(g.dtype) for name, g in gradient.items()}
        elif self.p == math.inf:
            shares = {name: (g != 0).to(g.dtype) for name, g in gradient.items()}
        else:
            # In [0, 1], so that no power over- or underflows.
            units = scaled([g.abs() for g in gradient.values()], 1.0, largest, in_place=True)
            shares = {name: unit.pow_(self.q - 1) for name, unit in zip(gradient, units, strict=True)}
        length = p_norm(shares, self.p)
        signed = [share.mul_(gradient[name].sign()) for name, share in shares.items()]
        return dict(zip(shares, scaled(signed, rho, length, in_place=True), strict=True))
