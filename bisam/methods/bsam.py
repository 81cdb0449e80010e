r"""bSAM: sharpness-aware training as variational inference, with an update of its own.

.. math::
    \theta \sim \mathcal N\big(w, \tfrac{1}{N s}\big), \quad r = \nabla L(\theta), \quad \epsilon = \rho\,\frac{g}{s}, \quad
    p = \nabla L(w + \epsilon), \quad (w, s) \leftarrow \mathrm{base}(p, r)

This method does not fit the axes as the others do: its precision s belongs to the base optimiser, yet also sets where the first
gradient is taken and how far the climb goes; and its base needs both gradients. So it is four parts that belong together,
:class:`Posterior`, :class:`Precision`, :class:`FirstGradientToBase` and the base :class:`~bisam.methods.variational.Variational`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import _checks
from .._kinds import kind
from ..axes.combination import AT_W, Combination
from ..axes.geometry import Ball, Geometry
from ..axes.memory import Memory
from ..axes.recipe import Recipe
from ..axes.shards import like
from ..axes.start import Start
from ..axes.tensors import Tensors, euclidean_norm
from .variational import Variational

__all__ = ["FirstGradientToBase", "Posterior", "Precision"]


class _OfVariational:
    """A part that needs the precision of its base."""

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        if not isinstance(base, Variational):
            part, got = type(self).__name__, type(base).__name__
            raise TypeError(f"base must be a bisam.Variational for {part}(), as in recipe {recipe!r}; got {got}")


@kind("Posterior")
@dataclass(frozen=True)
class Posterior(_OfVariational, Start):
    r"""Takes the first gradient at a draw from the posterior; the draw is not kept for the second.

    .. math:: \delta \sim \mathcal N\big(0, \tfrac{1}{N s}\big) \quad\text{elementwise}

    Source:
        Moellenhoff and Khan (2023), algorithm 1. :math:`1 / (N s)` is the variance; its root is the deviation.

    Example:
        >>> Posterior().kept
        False
    """

    kept = False

    def offset(self, weights: Tensors, memory: Memory) -> Tensors:
        found = {}
        for name, weight in weights.items():
            s, samples = memory.base.precision(weight), memory.base.group_of(weight)["samples"]
            noise = torch.randn(s.shape, generator=memory.generator(s.device), device=s.device, dtype=s.dtype)
            found[name] = (like(noise, s) / (samples * s).sqrt()).to(weight.dtype)
        return found


@kind("Precision")
@dataclass(frozen=True)
class Precision(_OfVariational, Geometry):
    r"""Climbs along the gradient divided by the precision, without a norm.

    .. math:: \epsilon = \rho\,\frac{g}{s}

    The scale of the ascent loss matters: nothing is normalised, so a Q without its factor :math:`1/\mu` would need another radius.

    Source:
        Moellenhoff and Khan (2023), algorithm 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> memory = Memory(Variational([weight], samples=100, precision=2.0), seed=0)
        >>> shape = Precision().prepared({"w": weight}, memory)
        >>> shape.perturbation({"w": torch.tensor([4.0, -2.0])}, {"w": weight}, rho=0.1)
        {'w': tensor([ 0.2000, -0.1000])}
    """

    def prepared(self, weights: Tensors, memory: Memory) -> _Scaled:
        # The weights given are values; the state of the base goes by parameter.
        return _Scaled({name: memory.base.precision(memory.named.get(name, w)) for name, w in weights.items()})


@dataclass(frozen=True, eq=False)
class _Scaled(Ball):
    s: Tensors

    def norm(self, perturbation, weights):
        return euclidean_norm({name: e * self.s[name] for name, e in perturbation.items()})

    def dual_norm(self, gradient, weights):
        return euclidean_norm(gradient)

    def perturbation(self, gradient, weights, rho, dual_norm=None):
        return {name: (rho * g / self.s[name]).to(g.dtype) for name, g in gradient.items()}


@kind("Handed")
@dataclass(frozen=True)
class FirstGradientToBase(_OfVariational, Combination):
    r"""Descends with the gradient at :math:`w + \epsilon` and hands the one of the first pass to the base.

    .. math:: p \text{ moves the mean}, \qquad r \text{ moves the precision}

    Args:
        at_w: which gradient r is. ``"descent"`` keeps the precision an estimate of the curvature of the descent loss,
            also where Q is climbed.

    Raises:
        ValueError: an unknown ``at_w``.

    Source:
        Moellenhoff and Khan (2023), algorithm 1.

    Example:
        >>> FirstGradientToBase().at_w
        'descent'
    """

    at_w: str = "descent"
    hands_over = True

    def __post_init__(self):
        _checks.choice("at_w", self.at_w, AT_W)

    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        """The gradient p; r is kept for the base, summed over the parts of a batch by their shares."""
        kept = memory.state("combination")
        kept.update({name: share * part + kept.get(name, 0.0) for name, part in r.items()})
        return p

    def before_base(self, named: Tensors, memory: Memory) -> None:
        kept = memory.state("combination")
        if kept:
            memory.base.hand({parameter: kept[name] for name, parameter in named.items() if name in kept})
            kept.clear()

    def forget(self, memory: Memory) -> None:
        memory.state("combination").clear()


def needs_variational(recipe: Recipe) -> bool:
    """Whether a recipe can only be used with :class:`~bisam.methods.variational.Variational`."""
    return any(isinstance(part, _OfVariational) for part in (recipe.geometry, recipe.start, recipe.combination))
