r"""A densely connected network: every layer sees the channels of all layers before it in its block.

A layer adds :math:`g` channels, :math:`x \mapsto [x, F(x)]`, where :math:`F` is batch norm, ReLU, 1 x 1 convolution
to :math:`4 g` channels, batch norm, ReLU, 3 x 3 convolution to :math:`g` channels. Between blocks a 1 x 1 convolution
halves the channels and pooling halves the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._parts import conv3x3, image_channels, pooled

__all__ = ["densenet121"]

BLOCKS = (6, 12, 24, 16)  # layers in each
GROWTH = 32  # channels that a layer adds


def densenet121(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """DenseNet-121 with a stem for small images: one 3 x 3 convolution to 64 channels, no pooling. All weights are as PyTorch makes them.

    Args:
        shape: of one sample, ``(channels, height, width)``; height and width at least 8.
        classes: number of classes.

    Source:
        Huang et al. (2017), table 1; stem and initialisation as in the public code of Xie et al. (2024), which joins new channels before the
        old ones, a relabelling.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in densenet121((3, 32, 32), 10).parameters())
        6956298
    """
    channels = image_channels("densenet121", shape, classes, least=8)
    inside = 2 * GROWTH
    layers: list[nn.Module] = [conv3x3(channels, inside)]
    for block, depth in enumerate(BLOCKS):
        layers += _between(inside) if block else []
        inside //= 2 if block else 1
        layers += [_Layer(inside + k * GROWTH) for k in range(depth)]
        inside += depth * GROWTH
    return nn.Sequential(*layers, nn.BatchNorm2d(inside), nn.ReLU(), *pooled(inside, classes))


def _between(channels: int) -> list[nn.Module]:
    """Half the channels, half the height and width."""
    narrow = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return [nn.BatchNorm2d(channels), nn.ReLU(), narrow, nn.AvgPool2d(2)]


class _Layer(nn.Module):
    """Joins new channels to those it gets."""

    def __init__(self, inside: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inside), nn.ReLU(), nn.Conv2d(inside, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH), nn.ReLU(), conv3x3(4 * GROWTH, GROWTH),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)
