"""What every kind of source makes of its files, and what is said where it cannot."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["ROOT", "DataError", "Images"]

ROOT = "root is the argument of that name, else the environment variable BISAM_DATA, else ./data"


class DataError(RuntimeError):
    """Data that is not there, is incomplete or cannot be read; the message says where and what to do."""


class Images(NamedTuple):
    """Training and test images, uint8 of shape (n, channels, height, width), and their classes, int64.

    Example:
        >>> import torch
        >>> grey = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        >>> Images(3, grey, torch.tensor([0, 2]), grey[:1], torch.tensor([1])).train.shape
        torch.Size([2, 1, 4, 4])
    """

    classes: int
    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
