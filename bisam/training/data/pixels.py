"""Smaller images, and the mean and deviation that images are scaled with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import _checks


def pooled(images: Tensor, pool: int) -> Tensor:
    r"""Smaller images: each pixel is the mean of a square of pixels, rounded, halves up.

    .. math:: \tilde x_{ij} = \Big\lfloor \frac{1}{s^2} \sum_{a, b < s} x_{s i + a,\, s j + b} + \frac12 \Big\rfloor

    Args:
        images: uint8, shape ``(n, channels, height, width)``.
        pool: side of the squares, s; 1 leaves the images as they are.

    Returns:
        uint8, shape ``(n, channels, height / s, width / s)``.

    Raises:
        TypeError, ValueError: something else than such images; a side that does not divide their height and width.

    Example:
        >>> pooled(torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8), 2)
        tensor([[[[2]]]], dtype=torch.uint8)
    """
    _checks.part("images", images, Tensor, "a tensor of images")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 of shape (n, channels, height, width), got {images.dtype} {tuple(images.shape)}")
    if (pool := _checks.whole("pool", pool)) == 1:
        return images
    n, channels, height, width = images.shape
    if height % pool or width % pool:
        raise ValueError(f"pool must divide the height and the width of the images, {height} and {width}; got {pool}")
    sums = images.reshape(n, channels, height // pool, pool, width // pool, pool).sum((3, 5), dtype=torch.int32)
    return sums.add_(pool**2 // 2).div_(pool**2, rounding_mode="floor").to(torch.uint8)


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], from exact sums; a channel of one value gets deviation 1, so as to become 0."""
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).tolist()
        n, total = sum(counts), sum(value * count for value, count in enumerate(counts))
        spread = n * sum(value**2 * count for value, count in enumerate(counts)) - total**2
        means.append(total / (255 * n))
        deviations.append(math.sqrt(spread) / (255 * n) if spread else 1.0)
    return tuple(means), tuple(deviations)
