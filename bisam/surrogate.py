r"""The lower bound of the 0-1 loss that BiSAM's inner player maximises.

.. math::
    F_{ij} = f(x_i)_j - f(x_i)_{y_i}, \qquad
    Q_{\phi,\mu} = \frac1n \sum_{i=1}^n \frac1\mu \log\Big(\frac1K \sum_{j=1}^K e^{\mu\phi(F_{ij})}\Big) \le L^{01}
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import _checks
from .bounds import Bound, NegLog

__all__ = ["Surrogate", "gap", "margins"]


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
    _checks.scores(logits, targets)
    _checks.true_scores(logits, targets)
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

    The derivative with respect to the true score is minus the sum of the others. Half-precision logits are
    computed in float32 and the values stay float32; the gradient has the dtype of the logits.

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
        return self.per_sample(logits, targets).mean()

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The values :math:`q_i`, shape ``(n,)``, each at or below the sample's 0-1 loss."""
        _checks.scores(logits, targets)
        _checks.true_scores(logits, targets)
        return self.values(logits, targets)

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """:meth:`per_sample` without the checks: what a training step calls on a batch that it has checked."""
        if torch._C._are_functorch_transforms_active():  # vmap, jvp and their kin take the plain formula apart
            return _value_and_gradient(logits, targets.long(), self.phi, self.mu)[0]
        return _Q.apply(logits, targets.long(), self.phi, self.mu)

    def gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        r"""The gradient of the mean :math:`Q_{\phi,\mu}` for the logits, shape ``(n, K)``, without a graph and without the value.

        ``logits.backward(q.gradient(logits, y))`` is ``q(logits, y).backward()``, to the last bit and cheaper.

        Args:
            logits: scores, shape ``(n, K)``; detached here, and not checked.
            targets: true classes, shape ``(n,)``.
        """
        with torch.no_grad():
            logits, targets = logits.detach(), targets.long()
            pull = _gradient_in_few_operations(logits, targets, self.phi, self.mu)
            if pull is None:
                pull = _value_and_gradient(logits, targets, self.phi, self.mu)[1]
            return pull.mul_(1 / len(logits)).to(logits.dtype)


class _Q(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept, so that backward is one multiplication."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> Tensor:
        value, gradient = _in_few_operations(logits, targets, phi, mu) or _value_and_gradient(logits, targets, phi, mu)
        ctx.phi, ctx.mu = phi, mu
        ctx.save_for_backward(logits, targets, gradient)
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor):
        logits, targets, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: write the gradient again as a function of the logits
            gradient = _value_and_gradient(logits, targets, ctx.phi, ctx.mu)[1]
        return (upstream.unsqueeze(-1) * gradient).to(logits.dtype), None, None, None


def _value_and_gradient(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> tuple[Tensor, Tensor]:
    """Per-sample q, shape (n,), and its gradient for the logits, shape (n, K), both at least float32.

    For every phi and mu, and differentiable itself.
    """
    margin, true = _margins_and_column(logits, targets)
    z = mu * phi(margin)
    top = z.amax(-1, keepdim=True)  # at least mu * phi(0), so the exponentials below never overflow
    weight = torch.exp(z - top)
    total = weight.sum(-1, keepdim=True)
    value = (top + torch.log(total / weight.shape[-1])).squeeze(-1) / mu
    pull = (weight / total * phi.derivative(margin)).scatter(-1, true, 0.0)
    return value, pull.scatter(-1, true, -pull.sum(-1, keepdim=True))


def _in_few_operations(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> tuple[Tensor, Tensor] | None:
    """The same without a graph, for bounds that offer ``exponentials``; ``None`` if this one does not, at this mu."""
    found = _shares(logits, targets, phi, mu)
    if found is None:
        return None
    margin, true, share, slope = found
    classes, total = share.shape[-1], share.sum(-1, keepdim=True)
    value = torch.log(total).squeeze(-1).mul_(1 / mu).add_(1 - math.log(classes) / mu)
    # Rounding must not lift q above the 0-1 loss: q is 0 when all classes tie, and that is as high as it may be. No more
    # than a rounding error is taken off, so that a phi that is no lower bound shows.
    above = value - margin.amax(-1).ceil_().clamp_(0, 1)
    value = value.sub_(above.clamp_(0, 64 * torch.finfo(value.dtype).eps))
    return value, _pull(share, total, slope, true)


def _gradient_in_few_operations(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> Tensor | None:
    """The gradient alone, bit for bit that of :func:`_in_few_operations`."""
    found = _shares(logits, targets, phi, mu)
    if found is None:
        return None
    _, true, share, slope = found
    return _pull(share, share.sum(-1, keepdim=True), slope, true)


def _shares(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Margins, true column, e^(mu (phi - 1)) and phi' of every entry; ``None`` if phi does not offer them, at this mu."""
    # A small mu would leave few digits of log(total) / mu, and see the floor under the share of a far class.
    if mu < 0.5 or not hasattr(phi, "exponentials"):
        return None
    margin, true = _margins_and_column(logits, targets)
    found = phi.exponentials(margin, mu)
    return None if found is None else (margin, true, *found)


def _pull(share: Tensor, total: Tensor, slope: Tensor, true: Tensor) -> Tensor:
    """The gradient for the logits: shares times slopes, and minus their sum in the true column."""
    pull = share.div_(total).mul_(slope)
    return pull.scatter_add_(-1, true, pull.sum(-1, keepdim=True).neg_())


def _margins_and_column(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    true = targets.unsqueeze(-1)
    return scores - scores.gather(-1, true), true
