r"""Residual networks for small images.

A block computes :math:`\operatorname{relu}(s(x) + F(x))`, where :math:`F` is convolution, batch norm, ReLU,
convolution, batch norm, and the shortcut :math:`s` is the identity wherever the shapes agree. Where a block halves
the image and doubles the channels there are two choices: A drops every other row and column and fills the new
channels with zeros, which costs no parameter; B is a 1 x 1 convolution with batch norm.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ... import _checks
from ._parts import conv3x3, image_channels, pooled, spread

__all__ = ["cifar_resnet", "resnet18"]


def cifar_resnet(shape: tuple[int, ...], classes: int, depth: int = 20, shortcut: str = "A") -> nn.Sequential:
    r"""The narrow residual network for CIFAR: three stages of 16, 32 and 64 channels, :math:`6 n + 2` layers.

    Args:
        shape: shape of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        depth: 8, 14, 20, 32, 44, 56, ...: :math:`6 n + 2` for :math:`n` blocks a stage.
        shortcut: ``"A"`` (subsample and pad with zeros) or ``"B"`` (1 x 1 convolution and batch norm).

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``. Weights of convolutions and of the linear layer are
        normal with variance 2 / fan-in, the linear layer's biases uniform as PyTorch makes them.

    Raises:
        ValueError: a shape that is no image, a depth that is not :math:`6 n + 2`, or another shortcut.

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

    Args:
        shape: shape of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``. Weights of convolutions are normal with variance 2 /
        fan-out, the linear layer is as PyTorch makes it.

    Raises:
        ValueError: a shape that is no image.

    Source:
        He et al. (2016), table 1, the 18-layer column, with shortcuts B; the stem is the usual one for CIFAR. Wang et
        al. (2024) train a ResNet-18 on CIFAR; how it starts is not known to us, so it starts as torchvision's does.

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
