"""A multilayer perceptron."""

from __future__ import annotations

import math

from torch import nn

from ... import _checks
from ._parts import sample_shape

__all__ = ["mlp"]


def mlp(shape: tuple[int, ...], classes: int, width: int = 128, depth: int = 2, dropout: float = 0.0) -> nn.Sequential:
    """Hidden layers of equal width with ReLU, and dropout after each if asked for.

    Args:
        shape: shape of one sample; it is flattened.
        classes: number of classes.
        width: units in a hidden layer.
        depth: number of hidden layers; with 0 the network is linear.
        dropout: share of hidden units set to zero in training, in [0, 1).

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``.

    Raises:
        TypeError, ValueError: a shape that is none, or a number out of its range.

    Example:
        >>> import torch
        >>> mlp((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    units, width = math.prod(sample_shape(shape, classes)), _checks.whole("width", width)
    depth, dropout = _checks.whole("depth", depth, least=0), _checks.fraction("dropout", dropout)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(units, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        units = width
    return nn.Sequential(*layers, nn.Linear(units, classes))
