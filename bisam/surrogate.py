r"""The lower bound of the 0-1 loss that BiSAM's inner player maximises.

.. math::
    F_{ij} = f(x_i)_j - f(x_i)_{y_i}, \qquad
    Q_{\phi,\mu} = \frac1n \sum_{i=1}^n \frac1\mu \log\Big(\frac1K \sum_{j=1}^K e^{\mu\phi(F_{ij})}\Big) \le L^{01}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from . import _checks
from .bounds import GAMMA, Bound, NegLog, Tanh

__all__ = ["Surrogate", "gap", "margins"]

NEAR = 24.0  # a margin times mu up to here loses no more than about 1e-6 when the margin is rounded to float32


def margins(logits: Tensor, targets: Tensor) -> Tensor:
    r"""How far each class scores above the true one.

    .. math:: F_{ij} = f(x_i)_j - f(x_i)_{y_i}

    Args:
        logits: scores, shape ``(n, K)``, floating point.
        targets: true classes, shape ``(n,)``, whole numbers in ``0 .. K - 1``.

    Returns:
        Margins, shape ``(n, K)``, dtype of the logits; exactly 0 in the true column. A sample is misclassified if
        its largest margin is above 0.

    Raises:
        TypeError, ValueError: wrong type, shape or class number, an empty batch, NaN among the logits, or a true class
            whose score is minus infinity.

    Source:
        Xie et al. (2024), Lemma 3.1.

    Example:
        >>> margins(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
        tensor([[ 0.,  3., -1.]])
    """
    _checks.scores(logits, targets, true_is_finite=True)
    return logits - logits.gather(1, targets.long().unsqueeze(1))


def gap(mu: float, classes: int) -> float:
    r"""The most that the log-sum-exp step of Lemma 3.1 gives away.

    .. math:: 0 \le \max_j \phi(F_j) - Q_{\phi,\mu} \le \frac{\log K}{\mu}

    Args:
        mu: inverse temperature, greater than 0.
        classes: number of classes K, at least 1.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        Xie et al. (2024), eq. 13 of the early version.

    Example:
        >>> round(gap(mu=1.5, classes=10), 2)
        1.54
    """
    return math.log(_checks.whole("classes", classes)) / _checks.positive("mu", mu)


@dataclass(frozen=True)
class Surrogate:
    r"""The ascent loss of BiSAM: a smooth lower bound of the 0-1 loss, with its gradient in closed form.

    .. math::
        q_i = \frac1\mu \log\Big(\frac1K \sum_{j=1}^K e^{\mu\phi(F_{ij})}\Big), \qquad
        \frac{\partial q_i}{\partial f_j} = \pi_{ij}\,\phi'(F_{ij}) \quad (j \ne y_i), \qquad
        \pi_{ij} = \frac{e^{\mu\phi(F_{ij})}}{\sum_k e^{\mu\phi(F_{ik})}}

    The derivative with respect to the true score is minus the sum of the others. Every entry has a small relative error at
    any margin, for any ``phi`` and ``mu``: margins are taken in float64 where float32 would round them. Values are at least
    float32; the gradient has the dtype of the logits and is rounded to it last, after all factors.

    Args:
        phi: lower bound of the step, :class:`~bisam.bounds.NegLog` or :class:`~bisam.bounds.Tanh` or an object like them.
        mu: inverse temperature, greater than 0; the larger, the closer to the maximum over classes.

    Raises:
        TypeError, ValueError: ``mu`` is not a finite number above 0, or ``phi`` has no ``derivative``.

    Source:
        Xie et al. (2024), Lemma 3.1 and eq. 14 of the early version.

    Example:
        >>> logits = torch.tensor([[0.0, 8.0], [8.0, 0.0]])
        >>> q = Surrogate(phi=NegLog(), mu=1.5)
        >>> q.per_sample(logits, torch.tensor([0, 0]))   # the first is misclassified, the second is not
        tensor([ 0.6717, -0.4621])
        >>> q(logits, torch.tensor([0, 0]))
        tensor(0.1048)
    """

    phi: Bound = field(default_factory=NegLog)
    mu: float = 1.5

    def __post_init__(self):
        _checks.positive("mu", self.mu)
        _checks.part("phi", self.phi, ("__call__", "derivative"), "a bound with a derivative, such as NegLog() or Tanh()")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        r"""The mean :math:`Q_{\phi,\mu}` over the batch, a scalar."""
        _checks.scores(logits, targets, true_is_finite=True)
        return self._found(logits, targets, mean=True)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The values :math:`q_i`, shape ``(n,)``, each at or below the sample's 0-1 loss."""
        _checks.scores(logits, targets, true_is_finite=True)
        return self.values(logits, targets)

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """:meth:`per_sample` without the checks: what a training step calls on a batch that it has checked."""
        return self._found(logits, targets, mean=False)

    def gradient(self, logits: Tensor, targets: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        r"""The gradient of the mean :math:`Q_{\phi,\mu}` for the logits, shape ``(n, K)``, without a graph and without the value.

        ``logits.backward(q.gradient(logits, y))`` is ``q(logits, y).backward()``, to the last bit and cheaper.

        Args:
            logits: scores, shape ``(n, K)``; detached here, and not checked.
            targets: true classes, shape ``(n,)``.
            scale: a factor, such as that of a ``GradScaler``. It is applied before the rounding to the dtype of the logits:
                a float16 gradient that is scaled afterwards may be 0 already.
        """
        with torch.no_grad():
            factor = scale / len(logits) if isinstance(scale, (int, float)) else 1 / len(logits)
            gradient = self._parts(logits.detach(), targets.long(), factor, with_value=False)[1]
            return _as(logits.dtype, gradient.mul_(scale) if isinstance(scale, Tensor) else gradient)

    def _found(self, logits: Tensor, targets: Tensor, mean: bool) -> Tensor:
        targets = targets.long()
        if _is_taken_apart(logits):
            value = _value_and_gradient(logits, targets, self.phi, self.mu)[0]
            return _as(_at_least_float32(logits), value.mean() if mean else value)
        return _Q.apply(logits, targets, self, mean)

    def _parts(self, logits: Tensor, targets: Tensor, scale: float, with_value: bool) -> tuple[Tensor | None, Tensor]:
        """Per-sample q and its gradient times a factor, without a graph, in the way that is quickest for phi and mu."""
        quick = _quick_way(self.phi, self.mu, logits.dtype)
        if quick is not None:
            return quick(logits, targets, self.phi, self.mu, scale, with_value)
        value, gradient = _value_and_gradient(logits, targets, self.phi, self.mu)
        return value, gradient.mul_(scale)


class _Q(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept, so that backward is one multiplication."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, surrogate: Surrogate, mean: bool) -> Tensor:
        ctx.surrogate, ctx.scale, ctx.mean = surrogate, 1 / len(logits) if mean else 1.0, mean
        value, gradient = surrogate._parts(logits, targets, ctx.scale, with_value=True)
        ctx.save_for_backward(logits, targets, gradient)
        return _as(_at_least_float32(logits), value.mean() if mean else value)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        logits, targets, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: write the gradient again as a function of the logits
            gradient = _value_and_gradient(logits, targets, ctx.surrogate.phi, ctx.surrogate.mu)[1] * ctx.scale
        upstream = upstream if ctx.mean else upstream.unsqueeze(-1)
        return _as(logits.dtype, upstream * gradient), None, None, None


def _is_taken_apart(logits: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation looks inside, which needs the plain formula."""
    if torch._C._are_functorch_transforms_active():
        return True
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(logits).tangent is not None


def _as(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)  # a call that changes nothing costs as much as a small operation


def _at_least_float32(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _value_and_gradient(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> tuple[Tensor, Tensor]:
    """Per-sample q, shape (n,), and its gradient for the logits, shape (n, K), both in float64.

    For every phi and mu, and differentiable itself. Float64 has digits to spare for the rounding of far margins and for
    what a large mu makes of the rounding of phi.
    """
    scores, true = logits.double(), targets.unsqueeze(-1)
    # The true column is a constant 0: summed with the others, its own term would swallow them.
    margin = _within_range(scores - scores.gather(-1, true)).scatter(-1, true, 0.0)
    z = _within_range(mu * phi(margin))
    top = z.detach().amax(-1, keepdim=True)  # at least mu * phi(0), so the exponentials below never overflow
    weight = torch.exp(z - top)
    total = weight.sum(-1, keepdim=True)
    value = ((top + torch.log(total / weight.shape[-1])) / mu).squeeze(-1)
    pull = (weight / total * phi.derivative(margin)).scatter(-1, true, 0.0)
    return value, pull.scatter(-1, true, -pull.sum(-1, keepdim=True))


def _within_range(x: Tensor) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)


# -- the published bounds in few operations --------------------------------------------------------------------------------


def _quick_way(phi: Bound, mu: float, dtype: torch.dtype) -> Callable | None:
    """For float32 and below, where that loses a few roundings and no more; ``None`` elsewhere, also for subclasses."""
    if dtype == torch.float64 or not 1 <= mu <= 10:  # a small mu magnifies the rounding of q, a large one that of phi
        return None
    if type(phi) is NegLog and mu % 0.5 == 0 and phi.gamma <= 2:  # the power mu is a product of roots
        return _neg_log
    if type(phi) is Tanh and phi.alpha <= 0.25:  # no entry is larger than the smaller of the two sigmas
        return _tanh
    return None


def _neg_log(logits: Tensor, targets: Tensor, phi: NegLog, mu: float, scale: float, with_value: bool):
    r"""With s = sigma(F), o = sigma(-F) and a + b = 1: e^(phi(F) - phi(0)) = s / (a s + b o), phi' = b o / (a s + b o)."""
    true = targets.unsqueeze(-1)
    right, wrong = _sides(logits, true, 1.0, NEAR / mu)
    b = 1 / (1 + math.exp(-phi.gamma))
    below = torch.lerp(wrong, right, b)
    ratio, slope = wrong.div_(below), right.div_(below)
    share = torch.sqrt(ratio, out=below) if mu % 1 else ratio
    for _ in range(math.ceil(mu) - 1):
        share = torch.mul(share, ratio, out=below)
    at_tie = 0.0 if phi.gamma == GAMMA else 1 - math.log1p(math.exp(phi.gamma))
    return _value_and_pull(share, slope, true, mu, b * scale, at_tie if with_value else None)


def _tanh(logits: Tensor, targets: Tensor, phi: Tanh, mu: float, scale: float, with_value: bool):
    r"""With s = sigma(2 alpha F) and o = sigma(-2 alpha F): phi = s - o and phi' = 4 alpha s o."""
    true = targets.unsqueeze(-1)
    right, wrong = _sides(logits, true, 2 * phi.alpha, NEAR)
    share = torch.sub(wrong, right).mul_(mu).exp_()
    return _value_and_pull(share, right.mul_(wrong), true, mu, 4 * phi.alpha * scale, 0.0 if with_value else None)


def _sides(logits: Tensor, true: Tensor, rate: float, near: float) -> tuple[Tensor, Tensor]:
    """sigma(-rate F), near 1 for a class far behind, and sigma(rate F), near 1 for one far ahead, both in float32.

    From margins in float64 where float32 would round too much of them away.
    """
    if logits.device.type == "cpu" and not torch.compiler.is_compiling():  # elsewhere the look would stop the device
        scores = logits.float()
        lead = scores.gather(-1, true) - scores
        low, high = torch.aminmax(lead)
        if -near < low.item() and high.item() < near:
            lead = lead if rate == 1 else lead.mul_(rate)
            return torch.sigmoid(lead), lead.neg_().sigmoid_()
    scores = logits.double()
    lead = (scores.gather(-1, true) - scores).mul_(rate)
    return torch.sigmoid(lead).float(), lead.neg_().sigmoid_().float()


def _value_and_pull(share: Tensor, slope: Tensor, true: Tensor, mu: float, scale: float, at_tie: float | None):
    """From e^(mu (phi - phi(0))) and the slopes, both overwritten; no value where phi(0) is ``None``."""
    total, value = share.sum(-1, keepdim=True), None
    zero = torch.zeros_like(total)
    if at_tie is not None:
        # A number as alpha is read by the kernel; a number as a factor is made a tensor first, which costs more than the rest.
        value = torch.add(zero, total.log(), alpha=1 / mu).squeeze(-1).sub_(math.log(share.shape[-1]) / mu - at_tie)
        # Rounding must not lift q above the 0-1 loss: q is 0 when all classes tie, and that is as high as it may be.
        value = functional.hardshrink(value, 8 * torch.finfo(value.dtype).eps).clamp_(max=1)
    pull = share.mul_(slope).scatter_(-1, true, zero)  # summed with the others, the true term would swallow them
    pull.scatter_(-1, true, pull.sum(-1, keepdim=True).neg_())
    return value, pull.mul_(torch.add(zero, total.reciprocal_(), alpha=scale))
