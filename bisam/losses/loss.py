"""What the two players are given: a loss of the logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from torch import Tensor

__all__ = ["Loss"]


class Loss(Protocol):
    """A loss of logits, sample by sample. One of your own is a subclass with :meth:`values`.

    Example:
        >>> import torch
        >>> class Beaten(Loss):
        ...     def values(self, logits, targets):
        ...         return logits.amax(1) - logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        >>> Beaten().values(torch.tensor([[2.0, 5.0]]), torch.tensor([0])), Beaten().gradient(None, None)
        (tensor([3.]), None)
    """

    @abstractmethod
    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, shape ``(n,)``, with a graph that leads to the logits; the step has checked its arguments.

        They are not weighted: weights of classes and samples belong to the batch, and so does what the mean is divided by.

        Args:
            logits: scores, shape ``(n, K)``.
            targets: true classes, shape ``(n,)``; or distributions over the classes, shape ``(n, K)``, of which a loss is the mean
                over the classes.
        """

    def mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of :meth:`values`, a scalar. An override takes fewer operations; its gradient is the same to the last bit."""
        return self.values(logits, targets).mean()

    def gradient(self, logits: Tensor, targets: Tensor, scale: float | Tensor = 1.0) -> Tensor | None:
        """The gradient of the mean for the logits times ``scale``, shape ``(n, K)``, where there is a closed form; ``None`` without one.

        ``scale`` is a number, or has shape ``(n, 1)``.
        """
        return None

    def weighted(self, logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """The loss of each sample times the weight of its class; ``weight`` has shape ``(K,)``, or ``(n, K)`` for distributions."""
        if targets.is_floating_point():
            return self.values(logits, targets * weight)
        return self.values(logits, targets) * weight[targets.long()]
