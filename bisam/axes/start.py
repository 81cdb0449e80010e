"""Where the ascent gradient is taken: at w, or at a random place nearby."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch

from .. import _checks
from .._kinds import kind
from .memory import Memory
from .shards import like, local, over_shards
from .tensors import Tensors

__all__ = ["RandomStart", "Start"]


class Start(Protocol):
    r"""The axis of the start: the ascent gradient is taken at :math:`w + \delta`.

    A start of your own is a subclass with :meth:`offset`.

    Example:
        >>> class Shifted(Start):
        ...     def offset(self, weights, memory):
        ...         return {name: torch.ones_like(weight) for name, weight in weights.items()}
        >>> Shifted().offset({"w": torch.zeros(2)}, None), Shifted.kept
        ({'w': tensor([1., 1.])}, True)
    """

    kept: bool = True  #: the descent gradient is taken at w + delta + epsilon; otherwise at w + epsilon

    @abstractmethod
    def offset(self, weights: Tensors, memory: Memory) -> Tensors:
        r"""The move :math:`\delta` from where the step begins, by name; a name that is left out stays."""

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` or ``ValueError`` for a base optimiser that this start cannot be used with."""
        return None


@kind("RandomStart")
@dataclass(frozen=True)
class RandomStart(Start):
    r"""Takes the ascent gradient at a random place nearby, which smooths the loss that is climbed.

    .. math::
        \delta_l = s\,\|w_l\|\,\frac{n_l}{\|n_l\|}, \quad n_l \sim \mathcal N(0, I), \qquad
        \hat\epsilon = \rho\,\frac{\nabla A(w + \delta)}{\|\nabla A(w + \delta)\|}

    for each tensor :math:`w_l` of the weights.

    Args:
        scale: the length of the random move as a share s of the tensor's, 0 or greater.
        kept: the descent gradient is taken at :math:`w + \delta + \hat\epsilon`; otherwise at :math:`w + \hat\epsilon`.

    Raises:
        TypeError, ValueError: ``scale`` is not a finite number or below 0; ``kept`` is not True or False.

    Source:
        Liu et al. (2022), "Random sharpness-aware minimization". The scale and whether the random part is kept are not
        settled by the texts at hand; the defaults are those of a public third-party implementation.

    Example:
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> offset = RandomStart(scale=0.1).offset({"w": torch.tensor([3.0, 4.0])}, memory)["w"]
        >>> round(offset.norm().item(), 4)
        0.5
    """

    scale: float = 0.1
    kept: bool = True

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "scale")
        _checks.flag("kept", self.kept)

    def offset(self, weights: Tensors, memory: Memory) -> Tensors:
        found = {}
        for name, weight in weights.items():
            weight = weight.detach()
            wide = torch.promote_types(weight.dtype, torch.float32)
            noise = torch.randn(weight.shape, generator=memory.generator(weight.device), device=weight.device, dtype=wide)
            length = torch.linalg.vector_norm(noise).clamp_(min=torch.finfo(wide).tiny)
            size = over_shards([torch.linalg.vector_norm(local(weight), dtype=wide)], [weight], p=2)[0]
            found[name] = like((noise * (self.scale * size / length)).to(weight.dtype), weight)
        return found
