r"""How far the inner player may go: the radius :math:`\rho`, constant, scheduled, or bought with a loss budget.

Every radius answers two questions: how large it is in this step (``now``), where 0 means a step of the base optimiser
alone; and how long the climb is once the gradient is known (``length``).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .memory import Memory
from .tensors import Tensors

__all__ = ["Constant", "Learner", "Radius"]


class Radius(Protocol):
    r"""The axis of the radius: how far a step climbs.

    A radius of your own is a subclass with ``rho`` and :meth:`now`; the rest has neutral defaults, and the step calls all of it.

    Example:
        >>> @dataclass(frozen=True)
        ... class Halving(Radius):
        ...     rho: float
        ...
        ...     def now(self, memory):
        ...         return self.rho / 2**memory.step
        >>> Halving(0.1).climbing_share, Halving(0.1).with_rho(0.2)
        (1.0, Halving(rho=0.2))
    """

    rho: float  #: the largest radius, or the first of one that changes; 0 is the base optimiser alone
    climbing_share: float = 1.0  #: the share of the steps that climb, in a long training
    changes_each_step: bool = False  #: it has another value at every step, so that a captured step would not come again
    learns: bool = False  #: needs a validation batch, and the whole training batch in one call
    at_w: str | None = None  #: ``"descent"`` if it needs the gradient of the descent loss at w
    extra_passes: float = 0.0  #: forward-backward passes a step, on average, beside those of the climb

    @abstractmethod
    def now(self, memory: Memory) -> float:
        """The radius of this step; 0 is a step of the base optimiser alone."""

    def length(self, now: float, dual_norm: Tensor) -> float | Tensor:
        """How far the climb goes when the gradient has this dual norm."""
        return now

    def with_rho(self, rho: float) -> Radius:
        """A copy with another ``rho``, greater than 0."""
        return replace(self, rho=rho)

    def check_recipe(self, recipe) -> None:
        """A ``ValueError`` for choices along other axes that this radius cannot be used with."""
        return None

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` or ``ValueError`` for a base optimiser that this radius cannot be used with."""
        return None

    def learner(self, pieces: list, validation, descent, memory: Memory) -> Learner | None:
        """What watches this step, on the parts of its batch and on the validation batch; ``None`` for a radius that does not learn."""
        return None


class Learner(Protocol):
    """What watches one step for a radius that learns. The step calls these in this order; tensors are by name."""

    def check(self, logits: Tensor) -> None:
        """Looks at the validation batch while nothing has moved; ``logits`` are the first ones of the training batch."""

    def climbed(self, moves: Tensors, rho: float) -> None:
        """Is told the perturbation of the parameters that share the radius, which is ``rho``."""

    def descended(self, parameters: Tensors, pieces: list, share: float, at_w: Tensors, at_worst: Tensors) -> None:
        """Is told the descent gradients of some pieces, a share of the batch: at w, where the radius asks for it, and at the worst point."""

    def moved(self, parameters: Tensors, memory: Memory) -> None:
        """Is told that the base has made its step: the time to learn."""


@kind("Constant")
@dataclass(frozen=True)
class Constant(Radius):
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
        _checks.keep(self, _checks.nonnegative, "rho")

    def now(self, memory: Memory) -> float:
        return self.rho
