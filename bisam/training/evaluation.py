"""Which samples a network gets right, and how many of them a climb has broken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..step.batch import Batch
from .data import Split

__all__ = ["accuracy", "broken", "is_right", "which_right"]


def is_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether the highest logit of each sample is that of its true class, of equal ones that of the first class."""
    return logits.argmax(1) == targets


def accuracy(model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None) -> float:
    """Share of samples whose highest logit is that of the true class, in percent; otherwise as :func:`which_right`."""
    return 100 * int(which_right(model, split, chunk, prepared).sum()) / len(split)


@torch.no_grad()
def which_right(model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Whether the highest logit of each sample is that of its true class, on the CPU; in evaluation mode, the model's mode is kept.

    ``prepared`` makes of a chunk of inputs what the network takes, such as :meth:`bisam.training.data.Data.prepared`.
    """
    was_training = model.training
    model.eval()
    parts = zip(split.inputs.split(chunk), split.targets.split(chunk), strict=True)
    right = [is_right(model(prepared(inputs) if prepared else inputs), targets) for inputs, targets in parts]
    model.train(was_training)
    return torch.cat(right).cpu()


def broken(batch: Batch) -> Tensor | int:
    """How many of the samples that both passes saw are right at w and wrong at w + epsilon, in training mode."""
    batch = batch if batch.chosen is None else batch.chosen
    if batch.at_worst is None:
        return 0
    return (is_right(batch.at_w, batch.targets) & ~is_right(batch.at_worst, batch.targets)).sum()
