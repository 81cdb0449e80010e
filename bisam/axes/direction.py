"""Which way to climb: along the gradient itself, or along a mixture with its average over the steps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .memory import Memory
from .shards import like
from .tensors import Tensors

__all__ = ["Averaged", "Direction", "RandomDirection"]


class Direction(Protocol):
    """The axis of the direction: what is made of the ascent gradient before the climb.

    A direction of your own is a subclass with :meth:`filtered`.

    Example:
        >>> import torch
        >>> class Backwards(Direction):
        ...     def filtered(self, gradient, memory):
        ...         return {name: -part for name, part in gradient.items()}
        >>> Backwards().filtered({"w": torch.tensor(1.0)}, None)
        {'w': tensor(-1.)}
    """

    has_one_climb: bool = False  #: it remembers something of the climb, so that a step must have one climb for the whole batch

    @abstractmethod
    def filtered(self, gradient: Tensors, memory: Memory) -> Tensors:
        """The direction of this step, by name; what has to be remembered is kept in ``memory.state("direction")``."""


@kind("RandomDirection")
@dataclass(frozen=True)
class RandomDirection(Direction):
    r"""Climbs nowhere in particular: the control that has the length of a climb and none of its aim.

    .. math:: d_t \sim \mathcal N(0, I)

    A new direction is drawn at every step, the same for all samples of a ball; the gradient says no more than which tensors climb.

    Source:
        No method; the usual control. With the round ball it is one draw of the noise that the bound behind SAM averages over.

    Example:
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> RandomDirection().filtered({"w": torch.zeros(3)}, memory)["w"].shape
        torch.Size([3])
    """

    def filtered(self, gradient: Tensors, memory: Memory) -> Tensors:
        return {name: like(_noise(g, memory), g) for name, g in gradient.items()}


def _noise(g: Tensor, memory: Memory) -> Tensor:
    wide = torch.promote_types(g.dtype, torch.float32)
    return torch.randn(g.shape, generator=memory.generator(g.device), device=g.device, dtype=wide).to(g.dtype)


@kind("Averaged")
@dataclass(frozen=True)
class Averaged(Direction):
    r"""Climbs along a mixture of the gradient and its exponential average.

    .. math:: d_t = a\,g_t + b\,m_t, \qquad m_t = \lambda\,m_{t-1} + (1 - \lambda)\,g_t

    Two repairs of SAM's noisy direction are the ends of one knob: VaSSO climbs along the average alone (a = 0, b = 1), to
    suppress the noise of the batch; F-SAM takes the average away (a = 1, b = -1), to keep nothing but that noise.
    With ``lagged`` the average is that of the steps before, :math:`m_{t-1}`. For a = 1, b = -1 this is the same direction, since
    :math:`g_t - m_t = \lambda\,(g_t - m_{t-1})`.

    Args:
        gradient: the factor a.
        average: the factor b.
        decay: :math:`\lambda`, in [0, 1).
        lagged: mix with the average as it was before this gradient; in the first step the direction is the gradient.
        start: the first average: ``"gradient"`` is :math:`m_1 = g_1`, as in public code; ``"zero"`` is
            :math:`m_1 = (1 - \lambda)\,g_1`.

    Raises:
        TypeError, ValueError: a factor that is no finite number, both factors 0, ``decay`` outside [0, 1), an unknown
            ``start``.

    Source:
        Li and Giannakis (2023), eq. 4, where theta is :math:`1 - \lambda`; Li et al. (2024), eq. 7 and their public code.

    Example:
        >>> import torch
        >>> vasso = Averaged(gradient=0.0, average=1.0, decay=0.6)
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> [vasso.filtered({"w": torch.tensor([g])}, memory)["w"].item() for g in (1.0, 0.0)]
        [1.0, 0.6000000238418579]
    """

    gradient: float
    average: float
    decay: float
    lagged: bool = False
    start: str = "gradient"
    has_one_climb = True

    def __post_init__(self):
        _checks.keep(self, _checks.real, "gradient", "average")
        if self.gradient == 0 and self.average == 0:
            raise ValueError("gradient and average must not both be 0: there would be no direction")
        _checks.keep(self, _checks.fraction, "decay")
        _checks.flag("lagged", self.lagged)
        _checks.choice("start", self.start, ("gradient", "zero"))

    def filtered(self, gradient: Tensors, memory: Memory) -> Tensors:
        averages = memory.state("direction")
        found = {name: self._one(g, averages.get(name)) for name, g in gradient.items()}
        averages.update({name: average for name, (_, average) in found.items()})
        return {name: direction for name, (direction, _) in found.items()}

    def _one(self, g: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The direction and the new average of one tensor."""
        if before is None or before.shape != g.shape:  # new, or another parameter under an old name
            average = g.clone() if self.start == "gradient" else (1 - self.decay) * g
            return g if self.lagged else self.gradient * g + self.average * average, average
        before = before.to(g)
        average = self.decay * before + (1 - self.decay) * g
        return self.gradient * g + self.average * (before if self.lagged else average), average
