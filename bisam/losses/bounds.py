r"""Lower bounds of the Heaviside function: the :math:`\phi` of BiSAM.

A bound is a small frozen object that knows its value and its derivative. Anything with these two methods will do
as ``phi`` in :class:`~bisam.losses.surrogate.Surrogate`; Lemma 3.1 holds for it if :math:`\phi(x) \le \mathbb 1[x > 0]` everywhere,
and the 0-1 loss of a tie is kept exactly if :math:`\phi(0) = 0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .. import _checks
from .._kinds import kind

__all__ = ["GAMMA", "Bound", "Identity", "NegLog", "Tanh", "heaviside"]

# The smallest shift with which -log stays at or below the Heaviside function: it puts phi(0) at 0 (Xie et al. 2024, eq. 18).
GAMMA = math.log(math.e - 1)


class Bound(Protocol):
    r"""What a :math:`\phi` must offer: ``phi(x)`` and ``phi.derivative(x)``, elementwise on tensors.

    :class:`~bisam.losses.surrogate.Surrogate` calls both with margins in float64.
    """

    def __call__(self, x: Tensor) -> Tensor:
        r"""Values :math:`\phi(x)`, shape and dtype of ``x``."""

    def derivative(self, x: Tensor) -> Tensor:
        r"""Values :math:`\phi'(x)`, shape and dtype of ``x``."""


def heaviside(x: Tensor) -> Tensor:
    r"""The Heaviside function, which both bounds stay below.

    .. math:: \mathbb 1[x > 0]

    Args:
        x: margins, any shape, floating point.

    Returns:
        Zeros and ones, shape and dtype of ``x``. It is 0 at a tie, ``x = 0``.

    Source:
        Xie et al. (2024), Lemma 3.1.

    Example:
        >>> heaviside(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0., 0., 1.])
    """
    return (x > 0).to(x.dtype)


@kind("Tanh")
@dataclass(frozen=True)
class Tanh(Bound):
    r"""The bound that is flat on both sides.

    .. math:: \phi(x) = \tanh(\alpha x), \qquad \phi'(x) = \alpha\,(1 - \tanh^2(\alpha x))

    Args:
        alpha: slope at zero, greater than 0; 0.1 in the published runs.

    Raises:
        TypeError, ValueError: ``alpha`` is not a finite number above 0.

    Source:
        Xie et al. (2024), eq. 17 of the early version.

    Example:
        >>> Tanh(alpha=1.0)(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.7616,  0.0000,  0.7616])
        >>> Tanh(alpha=0.1).derivative(torch.tensor([0.0]))
        tensor([0.1000])
    """

    alpha: float = 0.1  # Xie et al. 2024, section 4.1

    def __post_init__(self):
        _checks.positive("alpha", self.alpha)

    def __call__(self, x: Tensor) -> Tensor:
        z = self.alpha * x
        # What autograd makes of torch.tanh is 1 - tanh^2, which rounds to 0 far out; of this it makes 1 / cosh^2.
        odds = torch.exp(-2 * z.abs())
        return torch.where(z.abs() > 1, z.sign() * (1 - 2 * odds / (1 + odds)), torch.tanh(z))

    def derivative(self, x: Tensor) -> Tensor:
        # 1 - tanh^2 rounds to 0 far out; the product keeps its relative accuracy: s(2z) s(-2z) = 1 / (4 cosh^2 z).
        z = 2 * self.alpha * x
        return 4 * self.alpha * torch.sigmoid(z) * torch.sigmoid(-z)


@kind("NegLog")
@dataclass(frozen=True)
class NegLog(Bound):
    r"""The bound that keeps its slope on the left, where samples are still classified correctly.

    .. math:: \phi(x) = 1 - \log(1 + e^{\gamma - x}), \qquad \phi'(x) = \sigma(\gamma - x)

    Args:
        gamma: shift, at least :math:`\log(e - 1) = 0.5413`, the default, for which :math:`\phi(0) = 0`. A larger
            shift is still a lower bound but :math:`\phi(0) < 0`: looser everywhere.

    Raises:
        TypeError, ValueError: ``gamma`` is not a finite number, or so small that :math:`\phi(0) > 0`.

    Source:
        Xie et al. (2024), eq. 18 of the early version.

    Example:
        >>> NegLog()(torch.tensor([-5.0, 0.0, 5.0]))
        tensor([-4.5452,  0.0000,  0.9885])
        >>> NegLog().derivative(torch.tensor([-5.0, 0.0, 5.0]))
        tensor([0.9961, 0.6321, 0.0114])
    """

    gamma: float = GAMMA

    def __post_init__(self):
        if _checks.real("gamma", self.gamma) < GAMMA:
            raise ValueError(
                f"gamma must be at least log(e - 1) = {GAMMA:.6f}, got {self.gamma!r}: "
                "below it phi(0) > 0, and phi is no lower bound of the step"
            )

    def __call__(self, x: Tensor) -> Tensor:
        r"""Values :math:`1 - \log(1 + e^{\gamma - x})`, exactly :math:`\phi(0)` at 0 and never above 1."""
        if self.gamma != GAMMA:
            return 1 + functional.logsigmoid(x - self.gamma)
        # At the default shift phi(0) = 0 must not come out as a rounding error, which would break the bound at a tie.
        # On each side written with expm1 and log1p, where sigma(gamma) = 1 - 1/e.
        left, right = x.masked_fill(x > 0, 0), x.masked_fill(x < 0, 0)
        below = left - torch.log1p(torch.expm1(left) / math.e)
        above = -torch.log1p(torch.expm1(-right) * (1 - 1 / math.e))
        # Far out autograd makes 0 of expm1, where the derivative is small and not nothing.
        far = 1 - torch.log1p(torch.exp(-right) * (math.e - 1))
        return torch.where(x < 0, below, torch.where(x > 1, far, above))

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gamma - x)


@kind("Identity")
@dataclass(frozen=True)
class Identity(Bound):
    r"""No bound at all: the margins themselves, for the control in which nothing saturates.

    .. math:: \phi(x) = x

    This is BiSAM's ascent with its temperature and without its bound: at :math:`\mu = 1` cross-entropy less :math:`\log K`, at another
    :math:`\mu` that of the logits times :math:`\mu`, over :math:`\mu`. For :math:`x > 1` it lies above the Heaviside function, so
    Lemma 3.1 does not hold for it.

    Example:
        >>> Identity()(torch.tensor([-2.0, 3.0])), Identity().derivative(torch.tensor([-2.0, 3.0]))
        (tensor([-2.,  3.]), tensor([1., 1.]))
    """

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)
