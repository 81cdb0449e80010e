"""Which samples a network gets right, and how many of them a climb has broken.

Whoever asks says what becomes of a tie. An accuracy is about the one class that a network answers, of equal scores the first, as ``argmax``
has it; a broken sample is about the 0-1 loss, where a tie is right. Ties are as good as absent in float32, one logit in a thousand in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import _checks
from ..step.batch import Batch
from .data import Split

__all__ = ["TIES", "accuracy", "broken", "is_right", "which_right"]

TIES = ("right", "first")


def is_right(logits: Tensor, targets: Tensor, ties: str = "right") -> Tensor:
    r"""Whether no other class has a higher logit than the true one, on the device of the logits, which is not waited for.

    .. math:: F_{i y_i} \ge \max_j F_{ij}

    Args:
        logits: scores, shape ``(n, K)``.
        targets: true classes, shape ``(n,)``.
        ties: of a sample whose true class shares the highest score: ``"right"`` counts it, as :func:`~bisam.losses.cross_entropy.zero_one`
            does; ``"first"`` counts it if its class is the first of the equal ones. Others are a ``ValueError``.

    Example:
        >>> logits, targets = torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> is_right(logits, targets)
        tensor([ True,  True, False])
        >>> is_right(logits, targets, ties="first")
        tensor([ True, False, False])
    """
    if _checks.choice("ties", ties, TIES) == "first":
        return logits.argmax(1) == targets
    return logits.gather(1, targets.long().unsqueeze(1)).squeeze(1) >= logits.amax(1)


def accuracy(
    model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None, ties: str = "first"
) -> float:
    """Share of samples to which the network gives the highest score at their class, in percent; arguments as for :func:`which_right`.

    Example:
        >>> accuracy(nn.Flatten(), Split(torch.eye(2), torch.tensor([0, 0])))
        50.0
    """
    return 100 * int(which_right(model, split, chunk, prepared, ties).sum()) / len(split)


@torch.no_grad()
def which_right(
    model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None, ties: str = "first"
) -> Tensor:
    """Which samples are right, in evaluation mode, on the CPU; the mode of the model is kept.

    Args:
        model: any network that returns logits.
        split: samples and their classes.
        chunk: samples that go through the network at a time.
        prepared: makes of a chunk of inputs what the network takes, such as :meth:`bisam.training.data.Data.prepared`.
        ties: as for :func:`~bisam.training.evaluation.is_right`.

    Example:
        >>> which_right(nn.Flatten(), Split(torch.eye(2), torch.tensor([0, 0])))
        tensor([ True, False])
    """
    was_training = model.training
    model.eval()
    parts = zip(split.inputs.split(chunk), split.targets.split(chunk), strict=True)
    right = [is_right(model(prepared(inputs) if prepared else inputs), targets, ties) for inputs, targets in parts]
    model.train(was_training)
    return torch.cat(right).cpu()


def broken(batch: Batch, ties: str = "right") -> Tensor | int:
    """How many of the samples that both passes of a step saw are right at w and wrong at w + epsilon, in training mode.

    ``ties`` as for :func:`~bisam.training.evaluation.is_right`; ``"first"`` is the count of records of version 0.1.0.

    Example:
        >>> broken(Batch(nn.Flatten(), torch.eye(2), torch.tensor([0, 1])))
        0
    """
    batch = batch if batch.chosen is None else batch.chosen
    if batch.at_worst is None:
        return 0
    return (is_right(batch.at_w, batch.targets, ties) & ~is_right(batch.at_worst, batch.targets, ties)).sum()


class Sums:
    """What the steps of an epoch add up, on the device until its end: losses, right samples, and those that the climb has broken."""

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), device=device)
        self.right, self.broken = self.loss.long(), self.loss.long()

    def clear(self) -> None:
        """Begins again, in the same tensors."""
        for total in (self.loss, self.right, self.broken):
            total.zero_()

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Takes in a step, without waiting for it."""
        self.loss.add_(loss * len(batch.targets))
        self.right.add_(is_right(batch.at_w, batch.targets, ties="first").sum())
        self.broken.add_(broken(batch))
