"""A convolutional net small enough to train in seconds on a CPU."""

from __future__ import annotations

import math

from torch import nn

from ... import _checks
from ._parts import image_channels

__all__ = ["small_conv"]


def small_conv(shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Sequential:
    """Three 3 x 3 convolutions with batch norm, the last two with stride 2, and one linear layer.

    Args:
        shape: shape of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        width: channels of the first convolution; the others have twice as many.

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``.

    Raises:
        ValueError: a shape that is no image.

    Example:
        >>> import torch
        >>> small_conv((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    channels, (height, breadth) = image_channels("small_conv", shape, classes), shape[1:]
    width = _checks.whole("width", width)

    def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width, 1), *block(width, 2 * width, 2), *block(2 * width, 2 * width, 2),
        nn.Flatten(), nn.Linear(2 * width * math.ceil(height / 4) * math.ceil(breadth / 4), classes),
    )
