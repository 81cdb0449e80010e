"""What the steps of an epoch add up, on the device until its end."""

from __future__ import annotations

import torch
from torch import Tensor

from ..step.batch import Batch
from .evaluation import broken, is_right


class Sums:
    """What an epoch adds up, on the device until its end: losses, right samples, and those that the climb has broken."""

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
