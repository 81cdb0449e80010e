"""The ellipsoid of ASAM, around the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .geometry import Ellipsoid
from .tensors import Tensors, euclidean_norm

__all__ = ["Adaptive"]


@kind("Adaptive")
@dataclass(frozen=True)
class Adaptive(Ellipsoid):
    r"""The ellipsoid of ASAM, whose axes are as long as the weights are large.

    .. math::
        \epsilon = \rho\,\frac{T_w^2\,g}{\|T_w\,g\|_2}, \qquad T_w = \operatorname{diag}(|w| + \eta), \qquad
        \|T_w^{-1}\epsilon\|_2 = \rho, \qquad \langle g, \epsilon\rangle = \rho\,\|T_w\,g\|_2

    Two readings are in use, and their radii are not interchangeable. The method's authors scale the parameters whose
    name holds "weight" and leave the others, biases above all, in a round ball; the experiments of BiSAM scale all
    parameters and have no :math:`\eta`.

    Args:
        eta: added to the absolute weights so that a weight of zero can move, 0 or greater.
        scaled: ``"weights"`` for parameters with "weight" in their name, ``"all"`` for all of them.

    Raises:
        TypeError, ValueError: ``eta`` is not a finite number or below 0; an unknown ``scaled``.

    Source:
        Kwon et al. (2021), eq. 5 and their public code; for ``"all"`` Xie et al. (2024), appendix A.1 of the early
        version, and their public code.

    Example:
        >>> w, g = {"weight": torch.tensor([1.0, 3.0])}, {"weight": torch.tensor([1.0, 1.0])}
        >>> Adaptive(eta=0.0).perturbation(g, w, rho=1.0)
        {'weight': tensor([0.3162, 2.8460])}
    """

    eta: float = 0.01
    scaled: str = "weights"

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "eta")
        _checks.choice("scaled", self.scaled, ("weights", "all"))

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The norm that the ellipsoid is made of, :math:`\|T_w^{-1}\epsilon\|_2`; entries that cannot move count 0."""
        axes = self._axes(perturbation, weights)
        return euclidean_norm({n: (e / axes[n]).nan_to_num_(nan=0.0, posinf=torch.inf) for n, e in perturbation.items()})

    def stretched(self, tensors: Tensors, weights: Tensors, in_place: bool = False) -> Tensors:
        """The tensors times the axes of the ellipsoid, one after the other to need little memory."""
        found = {}
        for name, tensor in tensors.items():
            if not self._is_scaled(name):
                found[name] = tensor if in_place else tensor * 1.0
            else:
                axis = self._axis(weights[name])
                found[name] = tensor.mul_(axis) if in_place else axis.mul_(tensor)
        return found

    def _axes(self, names: Tensors, weights: Tensors) -> dict[str, Tensor | float]:
        return {name: self._axis(weights[name]) if self._is_scaled(name) else 1.0 for name in names}

    def _axis(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().add_(self.eta)

    def _is_scaled(self, name: str) -> bool:
        return self.scaled == "all" or "weight" in name
