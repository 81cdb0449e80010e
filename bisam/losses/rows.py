r"""Rows of logits, each with its true class or a distribution over the classes: what the two losses are applied to.

.. math:: L(w) = \frac{\sum_r m_r\,\ell(f_r, t_r)}{\sum_r m_r}

A recipe names the losses; a task says where their rows are in what a model returns, and how much each counts. The tasks are in
:mod:`bisam.losses.task`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from .loss import Loss
from .targets import are_soft, check_logits, checked_weights

__all__ = ["Rows", "Task"]


@dataclass(frozen=True, eq=False)
class Rows:
    r"""Rows of logits with their targets and weights.

    .. math:: \frac{\sum_r m_r\,\ell(f_r, t_r)}{\sum_r m_r}, \qquad m_r = s_r\,c_{y_r} \text{ for a class } y_r, \quad s_r \text{ for a distribution}

    Args:
        logits: scores f, shape ``(m, K)``.
        targets: true classes, shape ``(m,)``, or distributions over them, shape ``(m, K)``.
        weights: how much each row counts, s, shape ``(m,)``; ``None`` counts all alike. A row of weight 0 is left out.
        classes: weights c of the classes, shape ``(K,)``, as PyTorch's cross-entropy has them, for distributions also one set a row, shape
            ``(m, K)``; ``None`` weighs all alike.

    Example:
        >>> from bisam import CrossEntropy
        >>> rows = Rows(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), weights=torch.tensor([1.0, 0.0]))
        >>> rows.mean(CrossEntropy())
        tensor(0.1269)
    """

    logits: Tensor
    targets: Tensor
    weights: Tensor | None = None
    classes: Tensor | None = None

    def values(self, loss: Loss) -> Tensor:
        """The loss of each row times its weights, shape ``(m,)``."""
        found = loss.values(self.logits, self.targets) if self.classes is None else loss.weighted(self.logits, self.targets, self.classes)
        return found if self.weights is None else torch.where(self.weights > 0, found, 0.0) * self.weights.to(found.dtype)

    def mean(self, loss: Loss) -> Tensor:
        """The weighted mean of the loss, a scalar with a graph."""
        return loss.mean(self.logits, self.targets) if self.are_alike else self.mean_of(self.values(loss))

    def mean_of(self, values: Tensor) -> Tensor:
        """The mean of what :meth:`values` has found."""
        return values.mean() if self.are_alike else values.sum() / self._divisor

    def gradient(self, loss: Loss, scale: float | Tensor = 1.0) -> Tensor | None:
        """The gradient of :meth:`mean` for the logits times ``scale``, shape ``(m, K)``, where the loss has a closed form."""
        if self.are_alike:
            return loss.gradient(self.logits, self.targets, scale)
        is_soft = self.classes is not None and are_soft(self.targets)
        targets = self.targets * self.classes if is_soft else self.targets
        share = self._each / self._divisor
        return loss.gradient(self.logits, targets, (share * len(share) * scale).unsqueeze(-1))

    @property
    def are_alike(self) -> bool:
        """Whether all rows count alike."""
        return self.weights is None and self.classes is None

    @property
    def mass(self) -> Tensor | int:
        """The number of rows, or the sum of their weights, by which the sum of the losses is divided."""
        return len(self.targets) if self.are_alike else self._each.sum()

    @property
    def _divisor(self) -> Tensor:
        mass = self.mass
        return torch.where(mass > 0, mass, 1.0)  # of rows that are all left out the mean is 0

    @property
    def _each(self) -> Tensor:
        if self.classes is None:
            return self.weights
        of_class = self.classes.new_ones(len(self.targets)) if are_soft(self.targets) else self.classes[self.targets.long()]
        return of_class if self.weights is None else of_class * self.weights


class Task(Protocol):
    """What the logits of a model mean. One of your own is a subclass with :meth:`flat` and :meth:`scores`.

    Example:
        >>> class Cumulative(Task):
        ...     # ordinal classes 0 .. K: one logit for each threshold, which the class has passed or not
        ...     def flat(self, targets, weights=None):
        ...         return (targets.unsqueeze(1) > torch.arange(3)).long().flatten(), None
        ...
        ...     def scores(self, logits, targets):
        ...         return torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)
        >>> Cumulative().rows(torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 3])).targets[:6]
        tensor([0, 0, 0, 1, 0, 0])
    """

    @abstractmethod
    def flat(self, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The targets of the rows, of shape ``(m,)`` or ``(m, K)``, and how much each counts, of shape ``(m,)`` or ``None``.

        The rows of a sample follow each other. ``weights`` are those of the samples, shape ``(n,)``, or of the rows.
        """

    @abstractmethod
    def scores(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The logits of the rows, shape ``(m, K)``, with the graph of those of the model; ``targets`` are those of the user."""

    def classes(self, like: Tensor) -> Tensor | None:
        """The weights of the classes, shape ``(K,)``, in float32 at least and on the device of a tensor."""
        return None

    def weight_shape(self, targets: Tensor) -> tuple[int, ...]:
        """The shape of weights of the rows, where they are not those of the samples."""
        return tuple(targets.shape)

    def check(self, targets: Tensor) -> None:
        """A ``TypeError`` or ``ValueError`` for targets that are none of this task, before the model runs."""
        return None

    def rows(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Rows:
        """The rows that a loss is applied to."""
        scores, (targets, weights) = self.scores(logits, targets), self.flat(targets, weights)
        return Rows(scores, targets, weights, self.classes(scores))

    def mass(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | int:
        """How much all rows count together."""
        targets, weights = self.flat(targets, weights)
        return Rows(targets, targets, weights, self.classes(targets)).mass

    def mean(self, loss: Loss, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The weighted mean of a loss, a scalar with a graph, with its arguments checked: for a loop of your own."""
        _checks.protocol("loss", loss, Loss, "a loss such as CrossEntropy() or Surrogate()")
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            raise TypeError(f"logits must be a tensor of floating point, got {_checks.shown(logits)}")
        self.check(targets)
        rows = self.rows(logits, targets, None if weights is None else checked_weights(weights, targets, self.weight_shape(targets)))
        check_logits(rows.logits, rows.targets)
        return rows.mean(loss)
