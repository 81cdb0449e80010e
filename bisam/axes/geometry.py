r"""The set that a perturbation may move in: where in it is the linear function :math:`\langle g, \epsilon\rangle` largest?

Weights, gradients and perturbations are dictionaries from parameter name to tensor. The sets themselves are in
:mod:`bisam.axes.balls`, those that cover a part of the weights in :mod:`bisam.axes.masks`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from .tensors import Tensors

__all__ = ["Ball", "Geometry"]


class Geometry(Protocol):
    r"""The axis of geometry: the set that the perturbation moves in.

    .. math:: \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle g, \epsilon\rangle

    A set that is the same in every step is a subclass of :class:`Ball`. One that is drawn or moves on is a subclass of this class
    with :meth:`prepared`. The rest has neutral defaults, and the step calls all of it. ``memory`` is the
    :class:`~bisam.axes.memory.Memory` of the optimiser.

    Example:
        >>> from bisam.axes import L2, Unnormalised
        >>> class Growing(Geometry):
        ...     def prepared(self, weights, memory):
        ...         return L2() if memory.step < 100 else Unnormalised()
        >>> Growing.drawn_share
        1.0
    """

    is_drawn: bool = False  #: the parameters that may climb are drawn, so that by bad luck none of them has a gradient
    drawn_share: float = 1.0  #: of the parameters that the model lets climb, the share that is drawn, on average
    is_bounded: bool = True  #: a perturbation of size rho has norm rho, so that one that is too long can be brought back

    @abstractmethod
    def prepared(self, weights: Tensors, memory) -> Ball:
        """The set of this step around these weights, those that climb, where they stood before the step; once a ball, an ascent step and a part of the batch."""

    def active(self, model: nn.Module, memory) -> set[str] | None:
        """The names of the parameters that may move in this step, or ``None`` for all; called more than once, and so it draws nothing."""
        return None

    def after_step(self, names: list[str], memory) -> None:
        """What has to be drawn or moved on for the next step; ``names`` are those of all parameters of the base."""
        return None

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` or ``ValueError`` for a base optimiser that this set cannot be used with."""
        return None


class Ball(Geometry, Protocol):
    """A set that is the same in every step. One of your own is a subclass with :meth:`norm`, :meth:`dual_norm` and :meth:`perturbation`.

    They write to none of their arguments, and are given one tensor at least. A gradient of zero moves nothing.

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

    @abstractmethod
    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The norm that the set is a ball of, :math:`\|\epsilon\|`: a scalar on the device."""

    @abstractmethod
    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball: a scalar on the device."""

    @abstractmethod
    def perturbation(self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None) -> Tensors:
        r"""The :math:`\epsilon` of size rho that the gradient points to, by name; a name that is left out does not move.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            rho: size of the ball, 0 or greater, in the units of its norm.
            dual_norm: the value of :meth:`dual_norm`, where it is known already.
        """

    def worst_point(
        self, gradient: Tensors, weights: Tensors, length: Callable[[Tensor], float | Tensor | None], spare: bool
    ) -> tuple[Tensor, Tensors]:
        """What the step calls: the dual norm of the gradient, and the perturbation of the size that ``length`` makes of it.

        Args:
            gradient: as in :meth:`perturbation`.
            weights: as in :meth:`perturbation`.
            length: from the dual norm to the size; ``None`` if nothing is to move, and then no name is given back.
            spare: nobody needs the gradient any more, and the perturbation may be made in its memory.
        """
        size = self.dual_norm(gradient, weights)
        rho = length(size)
        return size, {} if rho is None else self.perturbation(gradient, weights, rho, size)

    def prepared(self, weights: Tensors, memory) -> Ball:
        return self
