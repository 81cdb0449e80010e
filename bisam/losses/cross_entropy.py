r"""The losses that surround the surrogate: cross-entropy above the 0-1 loss, and the 0-1 loss itself.

.. math:: Q_{\phi,\mu} \le L^{01} \le L^{ce} / \log 2

Natural-log cross-entropy alone is *not* an upper bound of the 0-1 loss: a sample that is wrong by a hair has
cross-entropy :math:`\log 2 = 0.69 < 1`.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .. import _checks
from .._kinds import kind
from .loss import Loss
from .targets import are_soft, check_shapes, check_values

__all__ = ["CONVENTIONS", "CrossEntropy", "zero_one"]

# How the smoothed mass is shared out: over all K classes (PyTorch, timm) or over the K - 1 wrong ones (BiSAM's code).
CONVENTIONS = ("all", "others")
NEVER = -(2**62)  # torch would leave out -100 in silence, and divide by what is left; what is left out is said by the task


@kind("CrossEntropy")
@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""Cross-entropy with label smoothing in either published convention.

    .. math::
        \ell^{ce}_i = -\sum_{j=1}^K t_{ij} \log p_{ij}, \qquad
        t_{ij} = \begin{cases} (1 - s)\,\mathbb 1[j = y_i] + s / K & \text{"all"} \\
        (1 - s)\,\mathbb 1[j = y_i] + s\,\mathbb 1[j \ne y_i] / (K - 1) & \text{"others"}\end{cases}

    The two agree if the factor of "all" is :math:`K / (K - 1)` times that of "others": 0.111 against 0.1 at K = 10.

    Args:
        smoothing: the mass s taken from the true class, in [0, 1).
        convention: ``"all"`` shares it over all classes, as PyTorch does; ``"others"`` over the wrong ones, as
            BiSAM's public code does.

    Raises:
        TypeError, ValueError: ``smoothing`` outside [0, 1), or an unknown convention.

    Source:
        Szegedy et al. (2016) for "all"; the smoothed loss of BiSAM's public code for "others", without the
        constant (the entropy of the targets) that the code subtracts.

    Example:
        >>> logits, targets = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
        >>> CrossEntropy()(logits, targets)
        tensor(0.2395)
        >>> CrossEntropy(smoothing=0.1)(logits, targets)
        tensor(0.3729)
        >>> CrossEntropy(smoothing=0.1, convention="others")(logits, targets)
        tensor(0.4395)
    """

    smoothing: float = 0.0
    convention: str = "all"
    weight: InitVar[object] = None
    ignore_index: InitVar[object] = None

    def __post_init__(self, weight, ignore_index):
        for name, given in (("weight", weight), ("ignore_index", ignore_index)):
            if given is not None:  # Q has to know of them too
                raise TypeError(f"{name} belongs to the task: Batch(model, inputs, targets, task=bisam.Multiclass({name}=...))")
        _checks.fraction("smoothing", self.smoothing)
        _checks.choice("convention", self.convention, CONVENTIONS)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch, a scalar."""
        return self.per_sample(logits, targets).mean()

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses of the samples, shape ``(n,)``; at least float32."""
        check_shapes(logits, targets)
        check_values(logits, targets)
        return self.values(logits, targets)

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """:meth:`per_sample` without the checks: what a training step calls on a batch that it has checked."""
        return self.weighted(logits, targets, None)

    def weighted(self, logits: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
        """:meth:`values` with the weights of the classes in each term of the sum, as PyTorch has them.

        ``weight`` has shape ``(K,)``, or ``(n, K)`` for distributions.
        """
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        smoothing = self._over_all(logits.shape[1])
        if not are_soft(targets):
            return functional.cross_entropy(scores, targets.long(), weight, ignore_index=NEVER, reduction="none", label_smoothing=smoothing)
        targets = targets.to(scores.dtype)
        if weight is not None:
            targets, smoothing = (targets * (1 - smoothing) + smoothing / logits.shape[1]) * weight, 0.0
        return functional.cross_entropy(scores, targets, reduction="none", label_smoothing=smoothing)

    def mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of :meth:`values` as one operation where nothing is smoothed; its last digit may differ, its gradient does not."""
        if self.smoothing or are_soft(targets):
            return self.values(logits, targets).mean()
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(scores, targets.long(), ignore_index=NEVER)

    def _over_all(self, classes: int) -> float:
        """The factor of the convention "all" that gives the same targets."""
        if classes == 1:
            return 0.0
        factor = self.smoothing * (1.0 if self.convention == "all" else classes / (classes - 1))
        if factor > 1:
            raise ValueError(
                f"smoothing must be at most (K - 1) / K = {(classes - 1) / classes:.3f} in the convention "
                f'"others" with K = {classes} classes, got {self.smoothing!r}'
            )
        return factor


def zero_one(logits: Tensor, targets: Tensor, ties: str = "right") -> Tensor:
    r"""The 0-1 loss of each sample, with ties in the arg-max decided by you, not by the order of the classes.

    .. math:: \ell^{01}_i = \mathbb 1\big[\max_{j \ne y_i} F_{ij} > 0\big], \qquad
        \ell^{01}_i = \sum_k t_{ik}\,\ell^{01}(f_i, k) \text{ for a distribution } t_i

    Args:
        logits: scores, shape ``(n, K)``, floating point.
        targets: true classes, shape ``(n,)``, whole numbers in ``0 .. K - 1``; or distributions over the classes, shape ``(n, K)``, which
            give the expected 0-1 loss.
        ties: ``"right"`` counts a sample whose true class shares the highest score as right, the reading for which
            Lemma 3.1 is proved; ``"wrong"`` counts it as wrong. Both lie between Q and cross-entropy / log 2.

    Returns:
        Zeros and ones, or expected values of them, shape ``(n,)``; at least float32, so that their mean is not rounded.

    Raises:
        TypeError, ValueError: wrong type, shape, class number or ``ties``, an empty batch, or NaN among the logits.

    Source:
        Xie et al. (2024), eq. 3 and 12 of the early version.

    Example:
        >>> logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
        >>> zero_one(logits, torch.tensor([0, 0]))
        tensor([0., 1.])
        >>> zero_one(logits, torch.tensor([0, 0]), ties="wrong")
        tensor([1., 1.])
    """
    _checks.choice("ties", ties, ("right", "wrong"))
    check_shapes(logits, targets)
    check_values(logits, targets)
    return ZeroOne(ties).values(logits, targets)


@dataclass(frozen=True)
class ZeroOne(Loss):
    """:func:`zero_one` without its checks, which would read numbers."""

    ties: str = "right"

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if are_soft(targets):
            every = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
            return (targets.to(dtype) * self._wrong(logits, every)).sum(1)
        return self._wrong(logits, targets.long().unsqueeze(1)).squeeze(1).to(dtype)

    def _wrong(self, logits: Tensor, true: Tensor) -> Tensor:
        """Whether a sample whose true class this is would be wrong; shape of ``true``, ``(n, c)``."""
        own, highest = logits.gather(1, true), logits.amax(1, keepdim=True)
        if self.ties == "right":
            return own < highest
        tied = (logits == highest).sum(1, keepdim=True)
        return (own < highest) | (tied > 1)
