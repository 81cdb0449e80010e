r"""The sets that the perturbation may move in, and the point of each that the gradient points to.

Every geometry answers one question: where, in a ball of radius :math:`\rho`, is the linear function
:math:`\langle g, \epsilon\rangle` largest? Weights, gradients and perturbations are dictionaries from parameter name
to tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["L2", "euclidean_norm"]

Tensors = dict[str, Tensor]


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
        scale = torch.where(size > 0, rho / size, 0.0)
        return dict(zip(gradient, torch._foreach_mul(list(gradient.values()), scale), strict=True))


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
    dtype = torch.float32
    for tensor in values:
        dtype = torch.promote_types(dtype, tensor.dtype)
    norm = _norm(values, dtype)
    # Squares of float32 leave its range below 1e-19 and above 1e19. Looking at the number is free on the CPU only.
    if norm.device.type == "cpu" and dtype == torch.float32 and not 1e-12 < norm < 1e12:
        return _norm(values, torch.float64).to(dtype)
    return norm


def _norm(values: list[Tensor], dtype: torch.dtype) -> Tensor:
    parts = torch._foreach_norm(values, 2, dtype=dtype)
    return torch.linalg.vector_norm(torch.stack([part.to(values[0].device) for part in parts]))
