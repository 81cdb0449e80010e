r"""What is made of the gradients at the two points: usually the one at :math:`w + \epsilon` alone.

Below, :math:`p = \nabla L(w + \epsilon)`, and r is the gradient at w: of the descent loss, or of the ascent loss, which is already
there but has another scale if it is Q.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .memory import Memory
from .tensors import Tensors, dot, euclidean_norm, linear

__all__ = ["AT_W", "Combination", "Decomposed", "LookSAM"]

AT_W = ("descent", "ascent")


class Combination(Protocol):
    r"""The axis of combination: what the base is given, of the gradients r at w and p at :math:`w + \epsilon`.

    A combination of your own is a subclass with :meth:`combined`; the rest has neutral defaults, and the step calls all of it.

    Example:
        >>> class Mean(Combination):
        ...     at_w = "descent"
        ...
        ...     def combined(self, r, p, memory, share=1.0):
        ...         return {name: (part + r[name]) / 2 for name, part in p.items()}
        >>> Mean().combined({"w": torch.tensor(1.0)}, {"w": torch.tensor(3.0)}, None)
        {'w': tensor(2.)}
    """

    at_w: str | None = None  #: r is the gradient of the ``"descent"`` or the ``"ascent"`` loss, or ``None`` if it is not needed
    climbing_share: float = 1.0  #: the share of the steps that climb, in a long training
    hands_over: bool = False  #: the base is given more than a gradient, and cannot skip a step without being told
    has_one_climb: bool = False  #: it remembers something of the climb, so that a step must have one climb for the whole batch

    @abstractmethod
    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        """The gradient that the base is given, by name, for a share of the batch; r is empty if ``at_w`` is ``None``."""

    def climbs(self, memory: Memory) -> bool:
        """Whether this step has two passes."""
        return True

    def alone(self, r: Tensors, memory: Memory) -> Tensors:
        """What the base is given in a step without a climb."""
        return r

    def before_base(self, named: Tensors, memory: Memory) -> None:
        """What else the base has to know before it moves the weights."""
        return None

    def forget(self, memory: Memory) -> None:
        """The gradients have been cleared without a step of the base."""
        return None

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` or ``ValueError`` for a base optimiser that this cannot be used with."""
        return None


@kind("Decomposed")
@dataclass(frozen=True)
class Decomposed(Combination):
    r"""Also follows the part of the gradient at w that the gradient at the worst point does not see, backwards.

    .. math:: p - \alpha\,r_\perp, \qquad r_\perp = r - \frac{\langle r, p\rangle}{\|p\|^2}\,p

    To first order this lowers the surrogate gap :math:`L(w + \epsilon) - L(w)` and leaves :math:`L(w + \epsilon)` alone.

    Args:
        alpha: :math:`\alpha`, 0 or greater.
        at_w: which gradient r is. ``"descent"`` costs one more backward pass, on the same logits, if the ascent loss is
            another; ``"ascent"`` is free, and then the scale of the ascent loss matters (Q has the factor 1/mu).

    Raises:
        TypeError, ValueError: ``alpha`` is not a finite number or below 0; an unknown ``at_w``.

    Source:
        Zhuang et al. (2022), algorithm 1.

    Example:
        >>> r, p = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 0.0])}
        >>> Decomposed(alpha=0.5).combined(r, p, None)
        {'w': tensor([ 2.0000, -0.5000])}
    """

    alpha: float
    at_w: str = "descent"

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "alpha")
        _checks.choice("at_w", self.at_w, AT_W)

    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        if self.alpha == 0:
            return p
        factor = 1 + self.alpha * _share(r, p)
        return linear(p, factor, r, -self.alpha)


@kind("Look")
@dataclass(frozen=True)
class LookSAM(Combination):
    r"""Climbs in every k-th step only, and remembers what the climb changed.

    .. math::
        v = p - \frac{\langle p, r\rangle}{\|r\|^2}\,r \;\text{ in steps } t \equiv 0 \;(\mathrm{mod}\; k), \qquad
        r + \alpha\,\frac{\|r\|}{\|v\|}\,v \;\text{ in the others}

    The steps between cost one pass. Their gradient is at w, bent by the direction that was remembered.

    Args:
        every: k, at least 1; with 1 this is SAM.
        alpha: weight of the remembered direction, 0 or greater.
        at_w: which gradient r is where v is made, as in :class:`Decomposed`; v does not depend on its scale.

    Raises:
        TypeError, ValueError: a number out of its range; an unknown ``at_w``.

    Source:
        Liu et al. (2022), "Towards efficient and scalable sharpness-aware minimization", algorithm 1.

    Example:
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1), seed=0)
        >>> r, p = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([2.0, 3.0])}
        >>> every_fifth = LookSAM(every=5, alpha=0.5)
        >>> every_fifth.combined(r, p, memory), every_fifth.alone(r, memory)
        ({'w': tensor([2., 3.])}, {'w': tensor([1.0000, 0.5000])})
    """

    every: int = 5
    alpha: float = 0.7
    at_w: str = "descent"
    has_one_climb = True

    def __post_init__(self):
        _checks.keep(self, _checks.whole, "every")
        _checks.keep(self, _checks.nonnegative, "alpha")
        _checks.choice("at_w", self.at_w, AT_W)

    @property
    def climbing_share(self) -> float:
        """One step in ``every``."""
        return 1 / self.every

    def climbs(self, memory: Memory) -> bool:
        return memory.step % self.every == 0

    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        """The gradient p; what is at right angles to r in it is remembered."""
        kept = memory.state("combination")
        kept.clear()
        kept.update(linear(p, 1.0, r, -_share(p, r)))
        return p

    def alone(self, r: Tensors, memory: Memory) -> Tensors:
        """The gradient at w with the remembered direction added."""
        kept = memory.state("combination").items()  # a parameter of another shape under an old name is another one
        v = {name: part.to(r[name]) for name, part in kept if name in r and part.shape == r[name].shape}
        ratio = self.alpha * euclidean_norm(r) / euclidean_norm(v)
        return linear(r, 1.0, v, torch.where(torch.isfinite(ratio), ratio, 0.0))  # nothing remembered: r alone


def _share(a: Tensors, b: Tensors) -> Tensor:
    r"""The factor :math:`\langle a, b\rangle / \|b\|^2`, and 0 if b is zero."""
    share = dot(a, b) / dot(b, b)
    return torch.where(torch.isfinite(share), share, 0.0)
