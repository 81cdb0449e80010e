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

from .. import _checks
from .._kinds import LATER, kind
from .bounds import Bound, NegLog
from .expected import ExpectedQ, mean_over_classes, sum_over_classes
from .formula import FORMS, OVER, at_least_float32, value_and_gradient
from .fused import cast, few_operations, few_passes, is_taken_apart, near_margins, reach_of
from .loss import Loss
from .targets import are_soft, check_shapes, check_values

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

    The derivative with respect to the true score is minus the sum of the others. Two choices make other lower bounds of it. With
    ``form="boltzmann"`` it is the mean of the :math:`\phi(F_{ij})` by their shares, at or above the published bound by as much as the entropy of the
    shares lies below its largest value,

    .. math::
        q_i = \sum_j \pi_{ij}\,\phi(F_{ij}), \qquad
        \frac{\partial q_i}{\partial f_j} = \pi_{ij}\,\big(1 + \mu\,(\phi(F_{ij}) - q_i)\big)\,\phi'(F_{ij}) \quad (j \ne y_i)

    With ``over="rivals"`` the sums, the shares and the K in front leave the true class out, so that a single rival has the share 1 and the pull
    :math:`\phi'(F_{ij})`.

    Of a distribution :math:`t_i` over the classes the bound is the
    mean, :math:`q_i = \sum_k t_{ik}\,q(f(x_i), k)`, at or below the expected 0-1 loss. Every entry has a relative error below
    :math:`3 \cdot 10^{-6}` in float32, at any margin, for any ``phi`` and :math:`10^{-8} \le \mu \le 10^8`: margins are taken in float64 where float32
    would round too much of them away. Values are at least float32; the gradient has the dtype of the logits and is rounded to it last,
    after all factors.

    Args:
        phi: lower bound of the step, :class:`~bisam.losses.bounds.NegLog` or :class:`~bisam.losses.bounds.Tanh` or an object like them.
        mu: inverse temperature, greater than 0; the larger, the closer to the maximum over classes.
        form: the smooth maximum, ``"mellowmax"``, the logarithm of a mean of exponentials, as published; or ``"boltzmann"``, the mean weighted by the
            shares. The two names are those of Asadi and Littman (2017).
        over: ``"classes"``, all K of them, as published; or ``"rivals"``, all but the true one.

    Raises:
        TypeError, ValueError: ``mu`` is not a finite number above 0, ``phi`` has no ``derivative``, ``form`` or ``over`` is unknown; later, logits of
            one class where only rivals count.

    Source:
        Xie et al. (2024), Lemma 3.1 and eq. 14 of the early version. The other forms are of this project, see the chapter "Two other lower bounds".

    Example:
        >>> logits = torch.tensor([[0.0, 8.0], [8.0, 0.0]])
        >>> q = Surrogate(phi=NegLog(), mu=1.5)
        >>> q.per_sample(logits, torch.tensor([0, 0]))   # the first is misclassified, the second is not
        tensor([ 0.6717, -0.4621])
        >>> q(logits, torch.tensor([0, 0]))
        tensor(0.1048)
        >>> Surrogate(phi=NegLog(), mu=1.5, form="boltzmann")(logits, torch.tensor([0, 0]))
        tensor(0.4084)
    """

    phi: Bound = field(default_factory=NegLog)
    mu: float = 1.5
    form: str = field(default="mellowmax", metadata=LATER)
    over: str = field(default="classes", metadata=LATER)

    def __post_init__(self):
        _checks.positive("mu", self.mu)
        _checks.part("phi", self.phi, ("__call__", "derivative"), "a bound with a derivative, such as NegLog() or Tanh()")
        _checks.choice("form", self.form, FORMS)
        _checks.choice("over", self.over, OVER)
        is_published = self.form == FORMS[0] and self.over == OVER[0]
        object.__setattr__(self, "reach", reach_of(self.phi, self.mu) if is_published else None)
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
        if are_soft(targets):
            return self._of_distributions(logits, targets)
        true = targets.long().unsqueeze(-1)
        return self._found(logits, true, near_margins(logits, true, self.reach), mean=False)

    def gradient(self, logits: Tensor, targets: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        r"""The gradient of the mean :math:`Q_{\phi,\mu}` for the logits, shape ``(n, K)``, without a graph and without the value.

        ``logits.backward(q.gradient(logits, y))`` is ``q(logits, y).backward()``, to the last bit and cheaper.

        Args:
            logits: scores, shape ``(n, K)``; detached here, and not checked.
            targets: true classes, shape ``(n,)``, or distributions over them, shape ``(n, K)``.
            scale: a factor, such as that of a ``GradScaler``, or one a sample, shape ``(n, 1)``. It is applied before the rounding to the dtype of the logits:
                a float16 gradient that is scaled afterwards may be 0 already.
        """
        logits = logits.detach()
        if are_soft(targets):
            return cast(logits.dtype, sum_over_classes(self, logits, targets)[1].mul_(scale / len(logits)))
        true = targets.long().unsqueeze(-1)
        near = near_margins(logits, true, self.reach)
        _, pull, total, rate = self.parts(logits, true, near, mean=None)
        return cast(logits.dtype, pull.div_(total.div_(scale * (rate / len(logits)))))

    def _checked(self, logits: Tensor, targets: Tensor, mean: bool) -> Tensor:
        check_shapes(logits, targets)
        if are_soft(targets):
            check_values(logits, targets, true_is_finite=True)
            return self._of_distributions(logits, targets).mean() if mean else self._of_distributions(logits, targets)
        true = targets.long().unsqueeze(-1)
        near = near_margins(logits, true, self.reach)
        if near is None:  # margins that are near are those of finite logits and of classes that exist
            _checks.score_values(logits, targets, true_is_finite=True)
        return self._found(logits, true, near, mean)

    def _of_distributions(self, logits: Tensor, targets: Tensor) -> Tensor:
        if is_taken_apart(logits) or torch.compiler.is_compiling():
            return cast(at_least_float32(logits), mean_over_classes(self, logits, targets)[0])
        return ExpectedQ.apply(logits, targets, self)

    def _found(self, logits: Tensor, true: Tensor, near: Tensor | None, mean: bool) -> Tensor:
        if near is None and is_taken_apart(logits):
            value = self.by_formula(logits, true.squeeze(-1))[0]
            return cast(at_least_float32(logits), value.mean() if mean else value)
        return _Q.apply(logits, true, self, near, mean)

    def by_formula(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """q of each sample and its gradient in float64, differentiable themselves."""
        if self.over == "rivals" and logits.shape[-1] < 2:
            raise ValueError(f"logits must have 2 classes at least for over='rivals', got {logits.shape[-1]}")
        return value_and_gradient(logits, targets, self.phi, self.mu, self.form, self.over)

    def parts(self, logits: Tensor, true: Tensor, near: Tensor | None, mean: bool | None) -> tuple[Tensor | None, Tensor, Tensor, float]:
        """q, and its gradient as pull / total * rate, of shapes (n, K), (n, 1) and a number, without a graph.

        q is the mean or, shape (n,), that of each sample, or left out if ``mean`` is ``None``.
        """
        if near is not None:
            return few_operations(near, true, self.phi, self.mu, self._halves, mean)
        if self.reach is not None and logits.dtype != torch.float64 and torch.compiler.is_compiling():
            return few_passes(logits, true, self.phi, self.mu, self._halves, mean)
        value, gradient = self.by_formula(logits, true.squeeze(-1))
        return value.mean() if mean else value, gradient, torch.ones_like(gradient[:, :1]), 1.0


class _Q(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept as a quotient, so that backward is one division."""

    @staticmethod
    def forward(ctx, logits: Tensor, true: Tensor, surrogate: Surrogate, near: Tensor | None, mean: bool) -> Tensor:
        value, pull, total, rate = surrogate.parts(logits, true, near, mean)
        ctx.surrogate, ctx.mean, ctx.rate = surrogate, mean, rate / len(logits) if mean else rate
        ctx.save_for_backward(logits, true, pull, total)
        return cast(at_least_float32(logits), value)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        logits, true, pull, total = ctx.saved_tensors
        upstream = cast(total.dtype, upstream if ctx.mean else upstream.unsqueeze(-1))  # no factor is rounded before the last
        if torch.is_grad_enabled():  # create_graph=True: write the gradient again as a function of the logits
            gradient = ctx.surrogate.by_formula(logits, true.squeeze(-1))[1]
            gradient = gradient * (upstream / len(logits) if ctx.mean else upstream)
        else:
            gradient = pull / (total / (upstream * ctx.rate))  # in the order of `gradient`, for the same bits
        return cast(logits.dtype, gradient), None, None, None, None
