"""Networks without shortcuts: a multilayer perceptron, and plain stacks of 3 x 3 convolutions."""

from __future__ import annotations

import math

from torch import nn

from ... import _checks
from ._parts import conv3x3, image_channels, pool, sample_shape, spread

__all__ = ["mlp", "small_conv", "vgg19_bn"]

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # of VGG: channels, and convolutions between two poolings


def mlp(shape: tuple[int, ...], classes: int, width: int = 128, depth: int = 2, dropout: float = 0.0) -> nn.Sequential:
    """Hidden layers of equal width with ReLU, and dropout after each if asked for.

    Args:
        shape: of one sample; it is flattened.
        classes: number of classes.
        width: units in a hidden layer.
        depth: number of hidden layers; with 0 the network is linear.
        dropout: share of hidden units set to zero in training, in [0, 1).

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


def small_conv(shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Sequential:
    """Three 3 x 3 convolutions with batch norm, the last two with stride 2, and one linear layer: trained in seconds on a CPU.

    Args:
        shape: of one sample, ``(channels, height, width)``; any height and width.
        classes: number of classes.
        width: channels of the first convolution; the others have twice as many.

    Example:
        >>> import torch
        >>> small_conv((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    channels, (height, breadth) = image_channels("small_conv", shape, classes), shape[1:]
    width = _checks.whole("width", width)
    layers: list[nn.Module] = []
    for inside, outside, stride in ((channels, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 2)):
        layers += [conv3x3(inside, outside, stride), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * math.ceil(height / 4) * math.ceil(breadth / 4), classes))


def vgg19_bn(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Sixteen convolutions with batch norm, in five stages that end in 2 x 2 max pooling, and three linear layers.

    The head is dropout, 512 to 512, ReLU, dropout, 512 to 512, ReLU, 512 to classes; each dropout drops half of the units, so that two passes
    of a step see one network only if they draw the same masks. Weights of convolutions are normal with variance 2 / fan-out and their biases
    zero; the linear layers are as PyTorch makes them.

    Args:
        shape: of one sample, ``(channels, height, width)``; height and width at least 32. After five poolings the mean over the places that are
            left is taken; at 32 x 32 there is one.
        classes: number of classes.

    Source:
        Simonyan and Zisserman (2015), configuration E, with batch norm; head and initialisation as in the public code of Xie et al. (2024).

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in vgg19_bn((3, 32, 32), 10).parameters())
        20565834
    """
    inside = image_channels("vgg19-bn", shape, classes, least=32)
    layers: list[nn.Module] = []
    for width, convolutions in STAGES:
        for _ in range(convolutions):
            layers += [conv3x3(inside, width, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
            inside = width
        layers.append(nn.MaxPool2d(2))
    head = pool()
    for _ in range(2):
        head += [nn.Dropout(0.5), nn.Linear(inside, inside), nn.ReLU()]
    net = nn.Sequential(*layers, *head, nn.Linear(inside, classes))
    spread(net, "fan_out")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    return net
