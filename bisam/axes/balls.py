r"""The sets that are the same in every step, and the point of each that the gradient points to; one of them is no ball at all.

.. math:: \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle g, \epsilon\rangle, \qquad
    \langle g, \epsilon\rangle = \rho\,\|g\|_*
"""

from __future__ import annotations

import math
import numbers
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .. import _checks
from .._kinds import kind
from .geometry import Ball
from .tensors import Tensors, check_range, euclidean_norm, p_norm, scaled

__all__ = ["L2", "Adaptive", "Lp", "Unnormalised"]


class Ellipsoid(Ball):
    r"""A Euclidean ball after a change of units, :math:`\epsilon = \rho\,T\,(T g) / \|T g\|_2`; the subclass knows T."""

    @abstractmethod
    def stretched(self, tensors: Tensors, weights: Tensors, in_place: bool = False) -> Tensors:
        """T times the tensors, by name: the dictionary itself, or fresh tensors; ``in_place`` in the memory of those that are given."""

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        return euclidean_norm(self.stretched(gradient, weights))

    def perturbation(self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None) -> Tensors:
        once = self.stretched(gradient, weights)
        size = euclidean_norm(once) if dual_norm is None else dual_norm
        return self._moved(once, weights, rho, size, in_place=once is not gradient)

    def worst_point(
        self, gradient: Tensors, weights: Tensors, length: Callable[[Tensor], float | Tensor | None], spare: bool
    ) -> tuple[Tensor, Tensors]:
        once = self.stretched(gradient, weights, in_place=spare)  # made once for both, the norm and the move
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
        >>> import torch
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> L2().perturbation(g, weights=g, rho=0.5)
        {'w': tensor([0.3000, 0.4000])}
    """

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        return euclidean_norm(perturbation)

    def stretched(self, tensors: Tensors, weights: Tensors, in_place: bool = False) -> Tensors:
        return tensors  # T is the identity


@kind("Adaptive")
@dataclass(frozen=True)
class Adaptive(Ellipsoid):
    r"""The ellipsoid of ASAM, whose axes are as long as the weights are large.

    .. math::
        \epsilon = \rho\,\frac{T_w^2\,g}{\|T_w\,g\|_2}, \qquad T_w = \operatorname{diag}(|w| + \eta), \qquad
        \|T_w^{-1}\epsilon\|_2 = \rho, \qquad \langle g, \epsilon\rangle = \rho\,\|T_w\,g\|_2

    Two readings are in use, and their radii are not interchangeable. The method's authors scale the parameters whose
    name holds "weight" and give the others, biases above all, axes of length 1; the experiments of BiSAM scale all
    parameters and have no :math:`\eta`. The name is that of ``model.named_parameters()``: of tied parameters the first, of a
    parametrised tensor that of what is trained, such as ``"parametrizations.weight.original0"``, which holds "weight" too.

    Args:
        eta: added to the absolute weights so that a weight of zero can move, 0 or greater.
        scaled: ``"weights"`` for parameters with "weight" in their name, ``"all"`` for all of them.

    Raises:
        TypeError, ValueError: ``eta`` is not a finite number or below 0; an unknown ``scaled``.

    Source:
        Kwon et al. (2021), eq. 5 and their public code; for ``"all"`` Xie et al. (2024), appendix A.1 of the early
        version, and their public code.

    Example:
        >>> import torch
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
        axes = {name: self._axis(weights[name]) if self._is_scaled(name) else 1.0 for name in perturbation}
        return euclidean_norm({n: (e / axes[n]).masked_fill_(e == 0, 0.0) for n, e in perturbation.items()})

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

    def _axis(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().add_(self.eta)

    def _is_scaled(self, name: str) -> bool:
        return self.scaled == "all" or "weight" in name


@kind("Lp")
@dataclass(frozen=True)
class Lp(Ball):
    r"""The ball of a p-norm over all parameters at once.

    .. math::
        \epsilon = \rho\,\frac{\operatorname{sign}(g)\,|g|^{q-1}}{\big(\|g\|_q^q\big)^{1/p}}, \qquad
        \tfrac1p + \tfrac1q = 1, \qquad \langle g, \epsilon\rangle = \rho\,\|g\|_q

    At p = inf this is the sign step :math:`\rho\operatorname{sign}(g)`, the fast gradient sign method in weight space;
    at p = 1 all of the radius goes to the largest entry, or is shared by those that tie for it. Radii of different
    p are not comparable.

    Args:
        p: exponent, 1 or greater; ``math.inf`` for the box.

    Raises:
        TypeError, ValueError: ``p`` is not a number, or below 1.

    Source:
        Foret et al. (2021), eq. 2.

    Example:
        >>> import torch
        >>> g = {"w": torch.tensor([3.0, -4.0])}
        >>> Lp(math.inf).perturbation(g, weights=g, rho=0.5)
        {'w': tensor([ 0.5000, -0.5000])}
        >>> Lp(1).perturbation(g, weights=g, rho=0.5)
        {'w': tensor([ 0.0000, -0.5000])}
    """

    p: float = 2.0

    def __post_init__(self):
        if isinstance(self.p, numbers.Real) and not self.p >= 1:
            raise ValueError(f"p must be 1 or greater, math.inf included; got {_checks.shown(self.p)}")
        if isinstance(self.p, numbers.Real) and self.p == math.inf:
            object.__setattr__(self, "p", math.inf)
        else:
            _checks.keep(self, _checks.real, "p")

    @property
    def q(self) -> float:
        """The exponent of the dual norm, q = p / (p - 1)."""
        if self.p == 1:
            return math.inf
        return 1.0 if self.p == math.inf else self.p / (self.p - 1)

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        return p_norm(perturbation, self.p)

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        return p_norm(gradient, self.q)

    def perturbation(self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None) -> Tensors:
        largest = p_norm(gradient, math.inf)
        if self.p == 1:  # compared, not divided: x * (1 / x) is not always 1
            shares = {name: (g.abs() == largest).to(g.dtype) for name, g in gradient.items()}
        elif self.p == math.inf:
            shares = {name: (g != 0).to(g.dtype) for name, g in gradient.items()}
        else:
            # In [0, 1], so that no power overflows.
            units = scaled([g.abs() for g in gradient.values()], 1.0, largest, in_place=True)
            shares = {name: unit.pow_(self.q - 1) for name, unit in zip(gradient, units, strict=True)}
        length = p_norm(shares, self.p)
        signed = [share.mul_(gradient[name].sign()) for name, share in shares.items()]
        return dict(zip(shares, scaled(signed, rho, length, in_place=True), strict=True))


@kind("Unnormalised")
@dataclass(frozen=True)
class Unnormalised(Ball):
    r"""No ball at all: the perturbation is the gradient times a number.

    .. math:: \epsilon = \rho\,g

    Its length follows the gradient's, so the scale of the ascent loss matters, and rho is in units of squared weights over loss.
    With :math:`Q_{\phi,\mu}` as it is here, the factor :math:`1/\mu` included, the gradient of a sample for its logits is at most
    :math:`2 \max \phi'` in the 1-norm, whatever :math:`\mu`.

    Source:
        The unnormalised SAM of Andriushchenko and Flammarion (2022); E-BiSAM as printed in Xie et al. (2024), algorithm 3
        of the early version, climbs this way.

    Example:
        >>> import torch
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> Unnormalised().perturbation(g, weights=g, rho=0.5)
        {'w': tensor([1.5000, 2.0000])}
    """

    is_bounded = False

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        r"""The Euclidean length :math:`\|\epsilon\|_2`, a scalar: rho times that of the gradient."""
        return euclidean_norm(perturbation)

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The length :math:`\|g\|_2`, a scalar: of a ball it would be the dual norm, and stands for it in a record."""
        return euclidean_norm(gradient)

    def perturbation(self, gradient: Tensors, weights: Tensors, rho: float | Tensor, dual_norm: Tensor | None = None) -> Tensors:
        check_range(rho, gradient.values())
        return {name: g * rho for name, g in gradient.items()}
