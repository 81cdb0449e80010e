r"""The lower bound of the 0-1 loss that BiSAM's inner player maximises.

.. math::
    F_{ij} = f(x_i)_j - f(x_i)_{y_i}, \qquad
    Q_{\phi,\mu} = \frac1n \sum_{i=1}^n \frac1\mu \log\Big(\frac1K \sum_{j=1}^K e^{\mu\phi(F_{ij})}\Big) \le L^{01}
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from .. import _checks
from .._kinds import kind
from .bounds import Bound, NegLog, Tanh
from .loss import Loss

__all__ = ["Surrogate", "gap", "margins"]

NEAR = 24.0  # a margin times mu up to here loses no more than 3e-6 of its exponential where float32 rounds it
_LOG2_E = math.log2(math.e)
_LARGEST = 88.3  # e^x leaves float32 just beyond


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
    _checks.score_shapes(logits, targets)
    _checks.score_values(logits, targets, true_is_finite=True)
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


@kind("Surrogate")
@dataclass(frozen=True)
class Surrogate(Loss):
    r"""The ascent loss of BiSAM: a smooth lower bound of the 0-1 loss, with its gradient in closed form.

    .. math::
        q_i = \frac1\mu \log\Big(\frac1K \sum_{j=1}^K e^{\mu\phi(F_{ij})}\Big), \qquad
        \frac{\partial q_i}{\partial f_j} = \pi_{ij}\,\phi'(F_{ij}) \quad (j \ne y_i), \qquad
        \pi_{ij} = \frac{e^{\mu\phi(F_{ij})}}{\sum_k e^{\mu\phi(F_{ik})}}

    The derivative with respect to the true score is minus the sum of the others. Every entry has a relative error below
    :math:`3 \cdot 10^{-6}` in float32, at any margin, for any ``phi`` and :math:`10^{-8} \le \mu \le 10^8`: margins are taken in float64 where float32
    would round too much of them away. Values are at least float32; the gradient has the dtype of the logits and is rounded to it last,
    after all factors.

    Args:
        phi: lower bound of the step, :class:`~bisam.losses.bounds.NegLog` or :class:`~bisam.losses.bounds.Tanh` or an object like them.
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
        object.__setattr__(self, "_reach", _reach(self.phi, self.mu))
        # Twice mu, where the power mu is made of roots: a compiler that takes mu for any number would not branch on it.
        object.__setattr__(self, "_halves", round(2 * min(self.mu, 10)))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        r"""The mean :math:`Q_{\phi,\mu}` over the batch, a scalar."""
        return self._checked(logits, targets, mean=True)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The values :math:`q_i`, shape ``(n,)``, each at or below the sample's 0-1 loss."""
        return self._checked(logits, targets, mean=False)

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """:meth:`per_sample` without the checks: what a training step calls on a batch that it has checked."""
        true = targets.long().unsqueeze(-1)
        return self._found(logits, true, _near_margins(logits, true, self._reach), mean=False)

    def gradient(self, logits: Tensor, targets: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        r"""The gradient of the mean :math:`Q_{\phi,\mu}` for the logits, shape ``(n, K)``, without a graph and without the value.

        ``logits.backward(q.gradient(logits, y))`` is ``q(logits, y).backward()``, to the last bit and cheaper.

        Args:
            logits: scores, shape ``(n, K)``; detached here, and not checked.
            targets: true classes, shape ``(n,)``.
            scale: a factor, such as that of a ``GradScaler``. It is applied before the rounding to the dtype of the logits:
                a float16 gradient that is scaled afterwards may be 0 already.
        """
        logits, true = logits.detach(), targets.long().unsqueeze(-1)
        near = _near_margins(logits, true, self._reach)
        _, pull, total, rate = self._parts(logits, true, near, mean=None)
        return _as(logits.dtype, pull.div_(total.div_(scale * (rate / len(logits)))))

    def _checked(self, logits: Tensor, targets: Tensor, mean: bool) -> Tensor:
        _checks.score_shapes(logits, targets)
        true = targets.long().unsqueeze(-1)
        near = _near_margins(logits, true, self._reach)
        if near is None:  # margins that are near are those of finite logits and of classes that exist
            _checks.score_values(logits, targets, true_is_finite=True)
        return self._found(logits, true, near, mean)

    def _found(self, logits: Tensor, true: Tensor, near: Tensor | None, mean: bool) -> Tensor:
        if near is None and _is_taken_apart(logits):
            value = _value_and_gradient(logits, true.squeeze(-1), self.phi, self.mu)[0]
            return _as(_at_least_float32(logits), value.mean() if mean else value)
        return _Q.apply(logits, true, self, near, mean)

    def _parts(
        self, logits: Tensor, true: Tensor, near: Tensor | None, mean: bool | None
    ) -> tuple[Tensor | None, Tensor, Tensor, float]:
        """q, and its gradient as pull / total * rate, of shapes (n, K), (n, 1) and a number, without a graph.

        q is the mean or, shape (n,), that of each sample, or left out if ``mean`` is ``None``.
        """
        if near is not None:
            return _few_operations(near, true, self.phi, self.mu, self._halves, mean)
        if self._reach is not None and logits.dtype != torch.float64 and torch.compiler.is_compiling():
            return _few_passes(logits, true, self.phi, self.mu, self._halves, mean)
        value, gradient = _value_and_gradient(logits, true.squeeze(-1), self.phi, self.mu)
        return value.mean() if mean else value, gradient, torch.ones_like(gradient[:, :1]), 1.0


class _Q(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept as a quotient, so that backward is one division."""

    @staticmethod
    def forward(ctx, logits: Tensor, true: Tensor, surrogate: Surrogate, near: Tensor | None, mean: bool) -> Tensor:
        value, pull, total, rate = surrogate._parts(logits, true, near, mean)
        ctx.surrogate, ctx.mean, ctx.rate = surrogate, mean, rate / len(logits) if mean else rate
        ctx.save_for_backward(logits, true, pull, total)
        return _as(_at_least_float32(logits), value)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        logits, true, pull, total = ctx.saved_tensors
        upstream = upstream if ctx.mean else upstream.unsqueeze(-1)
        if torch.is_grad_enabled():  # create_graph=True: write the gradient again as a function of the logits
            gradient = _value_and_gradient(logits, true.squeeze(-1), ctx.surrogate.phi, ctx.surrogate.mu)[1]
            gradient = gradient * (upstream / len(logits) if ctx.mean else upstream)
        else:
            gradient = pull / (total / (upstream * ctx.rate))  # in the order of `gradient`, for the same bits
        return _as(logits.dtype, gradient), None, None, None, None


def _is_taken_apart(logits: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation looks inside, which needs the plain formula."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:  # the quick answer to nearly every call
        return False
    return forward_ad.unpack_dual(logits).tangent is not None


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


# -- the published bounds, quickly -------------------------------------------------------------------------------------------
#
# With w = e^F and c = e^gamma, -log has e^(phi - 1) = w / (w + c) and phi' = c / (w + c). With v = e^(-2 alpha F), tanh has
# phi - 1 = -2 v / (1 + v) and phi' = 4 alpha v / (1 + v)^2. All are quotients of positive numbers: nothing cancels.


def _reach(phi: Bound, mu: float) -> float | None:
    """How far a margin may lie so that float32 loses a few roundings and no more; ``None`` where other numbers are too delicate."""
    if not 1 <= mu <= 10:  # a small mu magnifies the rounding of q, a large one that of phi
        return None
    if type(phi) is NegLog and mu % 0.5 == 0 and phi.gamma <= 2:  # the power mu is a product of roots
        return NEAR / mu
    return NEAR if type(phi) is Tanh and phi.alpha <= 0.25 else None  # a subclass may have another formula


def _near_margins(logits: Tensor, true: Tensor, reach: float | None) -> Tensor | None:
    """The margins in float32, if all are so near that their rounding does not matter; read on the CPU, where that is cheap.

    ``None`` also where nothing quick is offered, where an argument is wrong, and where something looks inside.
    """
    if reach is None or torch.compiler.is_compiling() or not logits.is_cpu or logits.dtype == torch.float64 or _is_taken_apart(logits):
        return None
    scores = _as(torch.float32, logits.detach())
    try:
        margin = scores - scores.gather(-1, true)
    except RuntimeError:  # a class that does not exist, which the checks say in better words
        return None
    low, high = torch.aminmax(margin)
    return margin if -reach < low.item() and high.item() < reach else None  # false for NaN


def _few_operations(margin: Tensor, true: Tensor, phi: Bound, mu: float, halves: int, mean: bool | None):
    """For the CPU, where a call costs more than what it computes: near margins, which are overwritten."""
    if type(phi) is NegLog:
        slope = math.exp(phi.gamma)
        weight = margin.mul_(_number(_LOG2_E)).exp2_()  # twice as quick as exp
        beside = weight + _number(slope)
        share = _power(weight.div_(beside), halves)
        total = share.sum(-1, keepdim=True)
        pull = share.div_(beside)
    else:
        slope = 4 * phi.alpha
        weight = margin.mul_(_number(-2 * phi.alpha * _LOG2_E)).exp2_()
        beside = weight + _number(1.0)
        weight.div_(beside)
        share = torch.mul(weight, _number(-2 * mu * _LOG2_E)).exp2_()
        total = share.sum(-1, keepdim=True)
        pull = share.mul_(weight).div_(beside)
    value = None if mean is None else _log_mean_of_near(total, mu, margin.shape[-1], mean)
    pull.scatter_(-1, true, 0.0)  # summed with the others, the true term would swallow them
    pull.scatter_(-1, true, pull.sum(-1, keepdim=True).neg_())
    return value, pull, total, slope


@functools.lru_cache(maxsize=64)
def _number(value: float) -> Tensor:
    """A number as a tensor: made at every call, it would cost more than what is done with it."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def _few_passes(logits: Tensor, true: Tensor, phi: Bound, mu: float, halves: int, mean: bool | None):
    """For the compiler, which makes one loop of many operations: any margin, with what float32 rounds away brought back."""
    scores = logits.float()
    margin, rest = _difference(scores, scores.gather(-1, true))
    if type(phi) is NegLog:
        weight, constant = _exponential(margin, rest, 1.0), math.exp(phi.gamma)
        beside = 1 / (weight + constant)
        share, slope, rate = _power(weight * beside, halves), beside, constant
    else:
        weight = _exponential(margin, rest, -2 * phi.alpha)
        beside = 1 / (weight + 1)
        behind = weight * beside
        share, slope, rate = torch.exp(-2 * mu * behind), behind * beside, 4 * phi.alpha
    total, pull = share.sum(-1, keepdim=True), _balanced(share * slope, true, by_mask=not scores.is_cpu)
    value = None if mean is None else _log_mean(total, mu, scores.shape[-1])
    return value.mean() if mean else value, pull, total, rate


def _balanced(pull: Tensor, true: Tensor, by_mask: bool) -> Tensor:
    """The pull of the other classes, and in the true column minus their sum.

    With masks alone it is one kernel, which a GPU likes; but then the pull is computed twice, and a CPU had rather write it once.
    """
    is_true = torch.arange(pull.shape[-1], device=pull.device) == true
    pull = torch.where(is_true, 0.0, pull) if by_mask else pull.scatter(-1, true, 0.0)
    return torch.where(is_true, -pull.sum(-1, keepdim=True), pull)


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a - b, and what its rounding left out (Knuth's two-sum)."""
    found = a - b
    minus_b = found - a
    rest = (a - (found - minus_b)) - (b + minus_b)
    return found, torch.where(found.abs() < 1e30, rest, 0.0)


def _exponential(x: Tensor, rest: Tensor, rate: float) -> Tensor:
    """e^(rate (x + rest)) to a few roundings, although float32 rounds the product (Dekker's product, by halves of 12 bits)."""
    x = x.clamp(-_LARGEST / abs(rate), _LARGEST / abs(rate))
    if rate == 1:
        return torch.exp(x) * (1 + rest)
    mantissa, exponent = math.frexp(rate)
    upper_rate = math.ldexp(round(mantissa * 2**12), exponent - 12)
    split = 4097.0 * x
    upper = split - (split - x)
    product = rate * x
    lost = (upper * upper_rate - product) + (upper * (rate - upper_rate) + (x - upper) * rate + rest * rate)
    return torch.exp(product) * (1 + lost)


def _power(x: Tensor, halves: int) -> Tensor:
    """x to the power halves / 2, at least 1: a general power costs ten times as much."""
    if halves == 2:
        return x
    found = torch.sqrt(x).mul_(x) if halves % 2 else x * x
    for _ in range((halves - 3) // 2 if halves % 2 else (halves - 4) // 2):
        found = found.mul_(x)
    return found


def _log_mean(total: Tensor, mu: float, classes: int) -> Tensor:
    """q of each sample from the sums of e^(mu (phi - 1))."""
    value = torch.log(total).squeeze(-1) * (1 / mu) + (1 - math.log(classes) / mu)
    # Rounding must not lift q above the 0-1 loss: q is 0 when all classes tie, and that is as high as it may be.
    return functional.hardshrink(value, 8 * torch.finfo(value.dtype).eps).clamp(max=1)


def _log_mean_of_near(total: Tensor, mu: float, classes: int, mean: bool) -> Tensor:
    """The same or its mean, of which the last operations are Python's own: those of a tensor take ten times as long."""
    if not mean:
        return _log_mean(total, mu, classes)
    found = torch.log(total).sum()  # a mean is two operations
    value = found.item() / len(total) / mu + 1 - math.log(classes) / mu
    return found.fill_(value if abs(value) > 8 * torch.finfo(found.dtype).eps else 0.0)
