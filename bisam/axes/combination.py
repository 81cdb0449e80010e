r"""What is made of the gradients at the two points: usually the one at :math:`w + \epsilon` alone.

Below, :math:`p = \nabla L(w + \epsilon)`, and r is the gradient at w: of the descent loss, or of the ascent loss, which is already
there but has another scale if it is Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .geometry import Tensors, euclidean_norm
from .memory import Memory

__all__ = ["Decomposed", "Look", "dot"]

AT_W = ("descent", "ascent")


@kind("Decomposed")
@dataclass(frozen=True)
class Decomposed:
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
        """The gradient that the base is given.

        Args:
            r: name to tensor, at w.
            p: at the worst point.
            memory: not needed here.
            share: not needed here; the part of the batch that this is.
        """
        if self.alpha == 0:
            return p
        factor = 1 + self.alpha * _share(r, p)
        return _sum(p, factor, r, -self.alpha)


@kind("Look")
@dataclass(frozen=True)
class Look:
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
        >>> look = Look(every=5, alpha=0.5)
        >>> look.combined(r, p, memory), look.alone(r, memory)
        ({'w': tensor([2., 3.])}, {'w': tensor([1.0000, 0.5000])})
    """

    every: int = 5
    alpha: float = 0.7
    at_w: str = "descent"

    def __post_init__(self):
        _checks.keep(self, _checks.whole, "every")
        _checks.keep(self, _checks.nonnegative, "alpha")
        _checks.choice("at_w", self.at_w, AT_W)

    def climbs(self, memory: Memory) -> bool:
        """Whether this step has two passes."""
        return memory.step % self.every == 0

    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        """The gradient p; what is at right angles to r in it is remembered."""
        memory.of("combination").clear()
        memory.of("combination").update(_sum(p, 1.0, r, -_share(p, r)))
        return p

    def alone(self, r: Tensors, memory: Memory) -> Tensors:
        """The gradient at w with the remembered direction added."""
        kept = memory.of("combination").items()  # a parameter of another shape under an old name is another one
        v = {name: part.to(r[name]) for name, part in kept if name in r and part.shape == r[name].shape}
        size = euclidean_norm(v)
        ratio = self.alpha * euclidean_norm(r) / size
        return _sum(r, 1.0, v, torch.where(torch.isfinite(ratio), ratio, 0.0))  # nothing remembered: r alone


def dot(a: Tensors, b: Tensors) -> Tensor:
    r"""The inner product :math:`\langle a, b\rangle` over the names that both have, summed in float32 at least.

    Args:
        a: name to tensor.
        b: name to tensor, of the same shapes.

    Source:
        Ours.

    Example:
        >>> dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        tensor(11.)
    """
    parts = [_inner(a[name], b[name]) for name in a if name in b]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum() if parts else torch.zeros(())


def _inner(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.dot(a.detach().to(wide).flatten(), b.detach().to(wide).flatten())


def _share(a: Tensors, b: Tensors) -> Tensor:
    r"""The factor :math:`\langle a, b\rangle / \|b\|^2`, and 0 if b is zero."""
    share = dot(a, b) / dot(b, b)
    return torch.where(torch.isfinite(share), share, 0.0)


def _sum(a: Tensors, x: Tensor | float, b: Tensors, y: Tensor | float) -> Tensors:
    """The names of a, and x a + y b; a name that b lacks has only its own part."""
    names = list(dict.fromkeys([*a, *b]))
    return {name: _term(a.get(name), x, b.get(name), y) for name in names}


def _term(a: Tensor | None, x: Tensor | float, b: Tensor | None, y: Tensor | float) -> Tensor:
    if a is None:
        return (b * y).to(b.dtype)
    return (a * x).to(a.dtype) if b is None else (a * x + b * y).to(a.dtype)
