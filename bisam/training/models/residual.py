r"""Residual networks for small images, and wide ones, whose blocks normalise before they convolve.

A block of the first kind computes :math:`\operatorname{relu}(s(x) + F(x))`, where :math:`F` is convolution, batch norm, ReLU, convolution, batch
norm, and the shortcut :math:`s` is the identity wherever the shapes agree. Where a block halves the image and doubles the channels there are two
choices: A drops every other row and column and fills the new channels with zeros, which costs no parameter; B is a 1 x 1 convolution with batch norm.

A unit of a wide network computes :math:`x + F(x)`, where :math:`F` is batch norm, ReLU, convolution, batch norm, ReLU, convolution. The first unit
of each of the three groups changes the shape. Both of its paths share the first norm and ReLU: with :math:`h = \operatorname{relu}(\operatorname{norm}(x))`
it computes :math:`P(h) + F'(h)`, where :math:`P` is a 1 x 1 convolution and :math:`F'` the rest of :math:`F`. With :math:`n` units a group a net has
:math:`6 n + 4` convolutions: one at the start, two in each of the :math:`3 n` units, and the three :math:`P`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ... import _checks
from ._parts import conv3x3, image_channels, pooled, spread

__all__ = ["cifar_resnet", "resnet18", "wide_resnet"]


def cifar_resnet(shape: tuple[int, ...], classes: int, depth: int = 20, shortcut: str = "A") -> nn.Sequential:
    r"""The narrow residual network for CIFAR: three stages of 16, 32 and 64 channels, :math:`6 n + 2` layers.

    Weights are normal with variance 2 / fan-in; the linear layer's biases are uniform, as PyTorch makes them.

    Args:
        shape: of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        depth: 8, 14, 20, 32, 44, 56, ...: :math:`6 n + 2` for :math:`n` blocks a stage.
        shortcut: ``"A"`` (subsample and pad with zeros) or ``"B"`` (1 x 1 convolution and batch norm).

    Source:
        He et al. (2016), section 4.2, with option A there; initialisation as in the public code of Xie et al. (2024).

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in cifar_resnet((3, 32, 32), 10, depth=56).parameters())
        853018
    """
    channels = image_channels("a residual network", shape, classes)
    blocks, rest = divmod(_checks.whole("depth", depth) - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6 n + 2 with n at least 1 (8, 14, 20, ...), got {depth}")
    skip = {"A": _Padded, "B": _projection}[_checks.choice("shortcut", shortcut, ("A", "B"))]
    net = _residual(channels, classes, (16, 32, 64), blocks, skip)
    spread(net, "fan_in", (nn.Conv2d, nn.Linear))
    return net


def resnet18(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """The residual network of 18 layers with a stem for small images: one 3 x 3 convolution, no pooling.

    Weights of convolutions are normal with variance 2 / fan-out; the linear layer is as PyTorch makes it.

    Args:
        shape: of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.

    Source:
        He et al. (2016), table 1, the 18-layer column, with shortcuts B; the stem is the usual one for CIFAR. Wang et al. (2024) train a
        ResNet-18 on CIFAR; how it starts is not known to us, so it starts as torchvision's does.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in resnet18((3, 32, 32), 10).parameters())
        11173962
    """
    channels = image_channels("resnet18", shape, classes)
    net = _residual(channels, classes, (64, 128, 256, 512), 2, _projection)
    spread(net, "fan_out")
    return net


def wide_resnet(shape: tuple[int, ...], classes: int, depth: int = 28, width: int = 2) -> nn.Sequential:
    r"""WRN-depth-width: three groups of :math:`16 k`, :math:`32 k` and :math:`64 k` channels for the width :math:`k`.

    The nets that Xie et al. (2024) call WRN-28-2 and WRN-28-10 have five units a group in their public code, one more than the name says: they
    are ``depth=34`` here. Weights of convolutions are normal with variance 2 / fan-in; the linear layer is all zero, so that all logits are 0
    before the first step, and only that layer has a gradient then.

    Args:
        shape: of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        depth: 10, 16, 22, 28, 34, 40, ...: :math:`6 n + 4` for :math:`n` units a group.
        width: how many times wider than a narrow net.

    Source:
        Zagoruyko and Komodakis (2016), without dropout; initialisation and the number of units of the nets of depth 34 as in the public code of
        Xie et al. (2024).

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


def _residual(channels: int, classes: int, widths: tuple[int, ...], blocks: int, skip) -> nn.Sequential:
    """Stem, stages of blocks of which the first of all but the first stage has stride 2, and head."""
    layers: list[nn.Module] = [conv3x3(channels, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inside = widths[0]
    for width in widths:
        for _ in range(blocks):
            layers.append(_Block(inside, width, skip))
            inside = width
    return nn.Sequential(*layers, *pooled(inside, classes))


class _Block(nn.Module):
    """Two convolutions beside a shortcut; stride 2 wherever the number of channels changes."""

    def __init__(self, inside: int, outside: int, skip):
        super().__init__()
        stride = 1 if inside == outside else 2
        self.body = nn.Sequential(
            conv3x3(inside, outside, stride), nn.BatchNorm2d(outside), nn.ReLU(),
            conv3x3(outside, outside), nn.BatchNorm2d(outside),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inside == outside else skip(inside, outside)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.body(x))


class _Padded(nn.Module):
    """Every other row and column, between as many channels of zeros on either side."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.before = (outside - inside) // 2
        self.after = outside - inside - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _projection(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside))


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
