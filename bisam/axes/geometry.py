r"""The sets that the perturbation may move in, and the point of each that the gradient points to.

Every geometry answers one question: where, in a ball of radius :math:`\rho`, is the linear function
:math:`\langle g, \epsilon\rangle` largest? Weights, gradients and perturbations are dictionaries from parameter name
to tensor.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .._kinds import kind
from .tensors import Tensors, check_range, euclidean_norm, scaled

__all__ = ["L2", "Ball", "Geometry", "Unnormalised"]


class Geometry(Protocol):
    r"""The axis of geometry: the set that the perturbation moves in.

    .. math:: \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle g, \epsilon\rangle

    A set that is the same in every step is a subclass of :class:`Ball`. One that is drawn or moves on is a subclass of this class
    with :meth:`prepared`. The rest has neutral defaults, and the step calls all of it. ``memory`` is the
    :class:`~bisam.axes.memory.Memory` of the optimiser.

    Example:
        >>> class Growing(Geometry):
        ...     def prepared(self, weights, memory):
        ...         return L2() if memory.step < 100 else Unnormalised()
        >>> Growing.drawn_share
        1.0
    """

    is_drawn: bool = False  #: the parameters that may climb are drawn, so that by bad luck none of them has a gradient
    drawn_share: float = 1.0  #: the share of the parameters that may climb, on average; the first pass computes gradients of these

    @abstractmethod
    def prepared(self, weights: Tensors, memory) -> Ball:
        """The set of this step, around these weights."""

    def active(self, model: nn.Module, memory) -> set[str] | None:
        """The names of the parameters that may move in this step, or ``None`` for all of them."""
        return None

    def after_step(self, names: list[str], memory) -> None:
        """What has to be drawn or moved on for the next step."""

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` or ``ValueError`` for a base optimiser that this set cannot be used with."""


class Ball(Geometry, Protocol):
    """A set that is the same in every step.

    Example:
        >>> class Signs(Ball):
        ...     def norm(self, perturbation, weights):
        ...         return torch.stack([part.abs().max() for part in perturbation.values()]).max()
        ...
        ...     def dual_norm(self, gradient, weights):
        ...         return torch.stack([part.abs().sum() for part in gradient.values()]).sum()
        ...
        ...     def perturbation(self, gradient, weights, rho, dual_norm=None):
        ...         return {name: rho * part.sign() for name, part in gradient.items()}
        >>> Signs().perturbation({"w": torch.tensor([3.0, -4.0])}, {}, rho=0.5)
        {'w': tensor([ 0.5000, -0.5000])}
    """

    is_bounded: bool = True  #: a perturbation of size rho has this norm, so that one that is too long can be brought back

    @abstractmethod
    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The norm that the set is a ball of, :math:`\|\epsilon\|`: a scalar on the device."""

    @abstractmethod
    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball: a scalar on the device."""

    @abstractmethod
    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` of size rho that the gradient points to, by name; a name that is left out does not move."""

    def worst_point(
        self, gradient: Tensors, weights: Tensors, length: Callable[[Tensor], float | Tensor | None], spare: bool
    ) -> tuple[Tensor, Tensors]:
        """The dual norm, and the perturbation of the length that it leads to.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            length: from the dual norm to the radius, or to ``None`` if nothing is to move.
            spare: nobody needs the gradient any more, so that the perturbation may be made in its memory.
        """
        size = self.dual_norm(gradient, weights)
        rho = length(size)
        return size, {} if rho is None else self.perturbation(gradient, weights, rho, size)

    def prepared(self, weights: Tensors, memory) -> Ball:
        """The set itself."""
        return self


class Ellipsoid(Ball):
    r"""A Euclidean ball after a change of units, :math:`\epsilon = \rho\,T\,(T g) / \|T g\|_2`; the subclass knows T."""

    @abstractmethod
    def stretched(self, tensors: Tensors, weights: Tensors, in_place: bool = False) -> Tensors:
        """T times the tensors, by name."""

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball, :math:`\|T g\|_2`: a scalar."""
        return euclidean_norm(self.stretched(gradient, weights))

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` of size rho that the gradient points to; zero where :math:`T g` is.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            rho: size of the ball, 0 or greater: in units of the weights, or with a T a share of them.
            dual_norm: the value of :meth:`dual_norm`, where it is known already.
        """
        once = self.stretched(gradient, weights)
        size = euclidean_norm(once) if dual_norm is None else dual_norm
        return self._moved(once, weights, rho, size, in_place=once is not gradient)

    def worst_point(
        self, gradient: Tensors, weights: Tensors, length: Callable[[Tensor], float | Tensor | None], spare: bool
    ) -> tuple[Tensor, Tensors]:
        """As :meth:`Ball.worst_point`, with the first product kept for the second."""
        once = self.stretched(gradient, weights, in_place=spare)
        size = euclidean_norm(once)
        rho = length(size)
        return size, {} if rho is None else self._moved(once, weights, rho, size, in_place=spare or once is not gradient)

    def _moved(self, once: Tensors, weights: Tensors, rho: float | Tensor, size: Tensor, in_place: bool) -> Tensors:
        twice = self.stretched(once, weights, in_place)
        # No small number is added to the norm: the length is rho whatever the scale of the loss.
        return dict(zip(twice, scaled(list(twice.values()), rho, size, in_place), strict=True))


@kind("L2")
@dataclass(frozen=True)
class L2(Ellipsoid):
    r"""The Euclidean ball over all parameters at once: the set of SAM and BiSAM.

    .. math::
        \epsilon = \arg\max_{\|\epsilon\|_2 \le \rho} \langle g, \epsilon\rangle = \rho\,\frac{g}{\|g\|_2},
        \qquad \langle g, \epsilon\rangle = \rho\,\|g\|_2

    Source:
        Foret et al. (2021), eq. 2 with p = 2.

    Example:
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> L2().perturbation(g, weights=g, rho=0.5)
        {'w': tensor([0.3000, 0.4000])}
    """

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The norm that the ball is made of, :math:`\|\epsilon\|_2`: a scalar on the device."""
        return euclidean_norm(perturbation)

    def stretched(self, tensors: Tensors, weights: Tensors, in_place: bool = False) -> Tensors:
        """The tensors themselves: the axes of this ball are all 1."""
        return tensors


@kind("Unnormalised")
@dataclass(frozen=True)
class Unnormalised(Ball):
    r"""No ball at all: the perturbation is the gradient times a number.

    .. math:: \epsilon = \rho\,g

    Its length follows the gradient's, so the scale of the ascent loss matters: with :math:`Q_{\phi,\mu}` as it is here, the factor
    :math:`1/\mu` included, the gradient of a sample for its logits is at most :math:`2 \max \phi'` whatever :math:`\mu`.

    Source:
        The unnormalised SAM of Andriushchenko and Flammarion (2022); E-BiSAM as printed in Xie et al. (2024), algorithm 3
        of the early version, climbs this way.

    Example:
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> Unnormalised().perturbation(g, weights=g, rho=0.5)
        {'w': tensor([1.5000, 2.0000])}
    """

    is_bounded = False

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The Euclidean length :math:`\|\epsilon\|_2`, a scalar: rho times that of the gradient."""
        return euclidean_norm(perturbation)

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The length :math:`\|g\|_2`, a scalar; here only to see whether the gradient is finite."""
        return euclidean_norm(gradient)

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The gradient times rho.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: not needed here.
            rho: the factor, 0 or greater, in units of squared weights over loss.
            dual_norm: not needed here.
        """
        check_range(rho, gradient.values())
        return {name: g * rho for name, g in gradient.items()}
