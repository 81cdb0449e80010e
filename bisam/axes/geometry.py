r"""The sets that the perturbation may move in, and the point of each that the gradient points to.

Every geometry answers one question: where, in a ball of radius :math:`\rho`, is the linear function
:math:`\langle g, \epsilon\rangle` largest? Weights, gradients and perturbations are dictionaries from parameter name
to tensor.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind

__all__ = ["L2", "Adaptive", "Lp", "Unnormalised", "climb_", "euclidean_norm"]

Tensors = dict[str, Tensor]


@kind("L2")
@dataclass(frozen=True)
class L2:
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

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball, :math:`\|g\|_2`: a scalar."""
        return euclidean_norm(gradient)

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` of length rho along the gradient; zero where the gradient is zero.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            rho: radius of the ball, 0 or greater, in units of the weights.
            dual_norm: the value of :meth:`dual_norm`, where it is known already.
        """
        size = self.dual_norm(gradient, weights) if dual_norm is None else dual_norm
        # No small number is added to the norm: the length is rho whatever the scale of the loss.
        return dict(zip(gradient, _times(list(gradient.values()), rho, size), strict=True))

    def stretch_(self, tensors: Tensors, weights: Tensors) -> None:
        """Multiplies tensors in place by the axes of the ball, which are all 1."""


@kind("Unnormalised")
@dataclass(frozen=True)
class Unnormalised:
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


@kind("Lp")
@dataclass(frozen=True)
class Lp:
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
        r"""The norm that the ball is made of, :math:`\|\epsilon\|_p`, a scalar on the device."""
        return _p_norm(perturbation, self.p)

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ball, :math:`\|g\|_q`, a scalar."""
        return _p_norm(gradient, self.q)

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` of p-norm rho that the gradient points to; zero where the gradient is zero.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at.
            rho: radius of the ball, 0 or greater, in units of the weights.
            dual_norm: not needed here.
        """
        largest = _p_norm(gradient, math.inf)
        if self.p == 1:  # compared, not divided: x * (1 / x) is not always 1
            shares = {name: (g.abs() == largest).to(g.dtype) for name, g in gradient.items()}
        elif self.p == math.inf:
            shares = {name: (g != 0).to(g.dtype) for name, g in gradient.items()}
        else:
            # In [0, 1], so that no power over- or underflows.
            units = _times_([g.abs() for g in gradient.values()], 1.0, largest)
            shares = {name: unit.pow_(self.q - 1) for name, unit in zip(gradient, units, strict=True)}
        length = _p_norm(shares, self.p)
        signed = [share.mul_(gradient[name].sign()) for name, share in shares.items()]
        return dict(zip(shares, _times_(signed, rho, length), strict=True))


@kind("Adaptive")
@dataclass(frozen=True)
class Adaptive:
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

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        r"""The most that :math:`\langle g, \epsilon\rangle` can be in the unit ellipsoid, :math:`\|T_w g\|_2`."""
        axes = self._axes(gradient, weights)
        return euclidean_norm({name: g * axes[name] for name, g in gradient.items()})

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        r"""The :math:`\epsilon` on the ellipsoid of size rho that the gradient points to; zero where :math:`T_w g` is.

        Args:
            gradient: name to tensor, the gradient of the ascent loss.
            weights: the same names, the point it was taken at; they set the axes.
            rho: size of the ellipsoid, 0 or greater, without a unit: a share of the weights.
            dual_norm: the value of :meth:`dual_norm`, where it is known already.
        """
        axes = self._axes(gradient, weights)
        scaled = {name: g * axes[name] for name, g in gradient.items()}
        size = euclidean_norm(scaled) if dual_norm is None else dual_norm
        stretched = [g.mul_(axes[name]) for name, g in scaled.items()]
        return dict(zip(scaled, _times_(stretched, rho, size), strict=True))

    def stretch_(self, tensors: Tensors, weights: Tensors) -> None:
        """Multiplies tensors in place by the axes of the ellipsoid, one after the other to need little memory."""
        for name, tensor in tensors.items():
            if self._is_scaled(name):
                tensor.mul_(self._axis(weights[name]))

    def _axes(self, names: Tensors, weights: Tensors) -> dict[str, Tensor | float]:
        return {name: self._axis(weights[name]) if self._is_scaled(name) else 1.0 for name in names}

    def _axis(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().add_(self.eta)

    def _is_scaled(self, name: str) -> bool:
        return self.scaled == "all" or "weight" in name


def climb_(geometry, gradient: Tensors, weights: Tensors, size: Tensor, rho: float | Tensor) -> Tensors:
    r"""The perturbation made in the memory of the gradient, which has been stretched once already.

    .. math:: T g \;\to\; \rho\,\frac{T\,(T g)}{\|T g\|_2}

    Args:
        geometry: a set with ``stretch_``.
        gradient: :math:`T g` by name; overwritten.
        weights: where the step begins.
        size: :math:`\|T g\|_2`.
        rho: the radius.

    Source:
        The formulas of :class:`L2` and :class:`Adaptive`, in their order of rounding.

    Example:
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> climb_(L2(), g, g, size=torch.tensor(5.0), rho=0.5)
        {'w': tensor([0.3000, 0.4000])}
    """
    geometry.stretch_(gradient, weights)
    _times_(list(gradient.values()), rho, size)
    return gradient


def _times(tensors: list[Tensor], rho: float | Tensor, size: Tensor) -> list[Tensor]:
    """Tensors times rho / size, on one device; zero where the size is 0."""
    check_range(rho, tensors)
    ratio = rho / size
    if _is_beyond_range(ratio, size):
        return _times_in_float64(tensors, rho, size)
    return list(torch._foreach_mul(tensors, _finite(ratio, size)))


def _times_(tensors: list[Tensor], rho: float | Tensor, size: Tensor) -> list[Tensor]:
    """:func:`_times` in place, on any devices."""
    check_range(rho, tensors)
    ratio, groups = rho / size, {}
    if _is_beyond_range(ratio, size):
        for tensor, product in zip(tensors, _times_in_float64(tensors, rho, size), strict=True):
            tensor.copy_(product)
        return tensors
    for tensor in tensors:
        groups.setdefault(tensor.device, []).append(tensor)
    for device, group in groups.items():
        torch._foreach_mul_(group, _finite(ratio, size).to(device))
    return tensors


def check_range(rho: float | Tensor, tensors: Iterable[Tensor]) -> None:
    """A radius that the weights can be moved by; one that is a number of another device is not read."""
    if isinstance(rho, Tensor):
        if rho.device.type != "cpu":
            return
        rho = float(rho)
    for dtype in {tensor.dtype for tensor in tensors}:
        if rho > torch.finfo(dtype).max:
            raise ValueError(f"rho must be at most {torch.finfo(dtype).max:.4g}, the largest number in {dtype}, got {rho!r}")


def _is_beyond_range(ratio: Tensor, size: Tensor) -> bool:
    """Whether rho / size has no number while rho and size have: the product with a tensor of this size may well have one."""
    if ratio.device.type != "cpu":  # elsewhere the look would stop the device
        return False
    return math.isinf(ratio.item()) and size.item() > 0


def _times_in_float64(tensors: list[Tensor], rho: float | Tensor, size: Tensor) -> list[Tensor]:
    ratio = rho / size.double()
    return [(tensor.double() * ratio.to(tensor.device)).to(tensor.dtype) for tensor in tensors]


def _finite(ratio: Tensor, size: Tensor) -> Tensor:
    """0 where the size is; the largest number in place of an infinite one: the right direction, though not all the way."""
    return ratio.nan_to_num(nan=math.nan).masked_fill_(size == 0, 0.0)


def _p_norm(tensors: Tensors, p: float) -> Tensor:
    """The p-norm of all entries together, as carefully summed as :func:`euclidean_norm`."""
    if p == 2:
        return euclidean_norm(tensors)
    values = [value for value in tensors.values() if value.numel()]
    if not values:
        return torch.zeros(())
    dtype = _wide(values)
    parts = [torch.linalg.vector_norm(value, p, dtype=dtype).to(values[0].device) for value in values]
    return torch.linalg.vector_norm(torch.stack(parts), p)


def euclidean_norm(tensors: Tensors) -> Tensor:
    r"""The Euclidean norm of all entries together.

    .. math:: \|g\|_2 = \Big(\sum_{\text{names}} \sum_k g_k^2\Big)^{1/2}

    Args:
        tensors: name to tensor, any shapes, floating point.

    Returns:
        A scalar, zero for no tensors. It is summed in float32 at least, and in float64 if any tensor is or if the sum
        leaves the range of float32 (on the CPU): squares of half-precision gradients overflow above 256, those of
        float32 vanish below 1e-22, and a norm that is infinite or zero switches a method off without a word.

    Source:
        Ours; the precision of the sum is the point.

    Example:
        >>> euclidean_norm({"w": torch.tensor([300.0, 400.0], dtype=torch.float16)})
        tensor(500.)
    """
    values = list(tensors.values())
    if not values:
        return torch.zeros(())
    dtype = _wide(values)
    norm = _norm(values, dtype)
    # Squares of float32 leave its range below 1e-19 and above 1e19. Looking at the number is free on the CPU only.
    if norm.device.type == "cpu" and dtype == torch.float32 and not 1e-12 < norm < 1e12:
        return _norm(values, torch.float64).to(dtype)
    return norm


def _wide(values: list[Tensor]) -> torch.dtype:
    """The type to sum in: float32 at least, float64 if any tensor is."""
    dtype = torch.float32
    for other in {tensor.dtype for tensor in values}:
        dtype = torch.promote_types(dtype, other)
    return dtype


def _norm(values: list[Tensor], dtype: torch.dtype) -> Tensor:
    parts = torch._foreach_norm(values, 2, dtype=dtype)
    return torch.linalg.vector_norm(torch.stack([part.to(values[0].device) for part in parts]))
