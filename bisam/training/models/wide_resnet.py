r"""Wide residual networks, whose blocks normalise before they convolve.

A unit computes :math:`x + F(x)`, where :math:`F` is batch norm, ReLU, convolution, batch norm, ReLU, convolution. The
first unit of each of the three groups changes the shape. Both of its paths share the first norm and ReLU: with
:math:`h = \operatorname{relu}(\operatorname{norm}(x))` it computes :math:`P(h) + F'(h)`, where :math:`P` is a 1 x 1
convolution and :math:`F'` the rest of :math:`F`. With :math:`n` units a group a net has :math:`6 n + 4` convolutions:
one at the start, two in each of the :math:`3 n` units, and the three :math:`P`.
"""

from __future__ import annotations

from torch import Tensor, nn

from ... import _checks
from ._parts import conv3x3, image_channels, pooled, spread

__all__ = ["wide_resnet"]


def wide_resnet(shape: tuple[int, ...], classes: int, depth: int = 28, width: int = 2) -> nn.Sequential:
    r"""WRN-depth-width: three groups of :math:`16 k`, :math:`32 k` and :math:`64 k` channels for the width :math:`k`.

    The nets that Xie et al. (2024) call WRN-28-2 and WRN-28-10 have five units a group in their public code, one more
    than the name says: they are ``depth=34`` here.

    Args:
        shape: shape of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        depth: 10, 16, 22, 28, 34, 40, ...: :math:`6 n + 4` for :math:`n` units a group.
        width: how many times wider than a narrow net.

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``. Weights of convolutions are normal with variance 2 /
        fan-in; the linear layer is all zero, so that all logits are 0 before the first step, and only that layer has
        a gradient then.

    Raises:
        ValueError: a shape that is no image, a depth that is not :math:`6 n + 4`, or a width below 1.

    Source:
        Zagoruyko and Komodakis (2016), without dropout; initialisation and the number of units of the nets of depth
        34 as in the public code of Xie et al. (2024).

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in wide_resnet((3, 32, 32), 10, depth=28, width=10).parameters())
        36479194
    """
    channels = image_channels("a wide residual network", shape, classes)
    units, rest = divmod(_checks.whole("depth", depth) - 4, 6)
    if rest or units < 1:
        raise ValueError(f"depth must be 6 n + 4 with n at least 1 (10, 16, 22, ...), got {depth}")
    inside, layers = 16, [conv3x3(channels, 16)]
    for outside, stride in zip((16, 32, 64), (1, 2, 2), strict=True):
        outside *= _checks.whole("width", width)
        layers += [_Change(inside, outside, stride), *(_Unit(outside) for _ in range(units - 1))]
        inside = outside
    net = nn.Sequential(*layers, nn.BatchNorm2d(inside), nn.ReLU(), *pooled(inside, classes))
    spread(net, "fan_in")
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net


class _Unit(nn.Module):
    """A unit that keeps the shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), conv3x3(channels, channels),
            nn.BatchNorm2d(channels), nn.ReLU(), conv3x3(channels, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Change(nn.Module):
    """The first unit of a group: both of its paths start behind the first norm and ReLU."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU())
        self.body = nn.Sequential(
            conv3x3(inside, outside, stride), nn.BatchNorm2d(outside), nn.ReLU(), conv3x3(outside, outside)
        )
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.shortcut(x) + self.body(x)
