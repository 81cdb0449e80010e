"""A plain stack of 3 x 3 convolutions: VGG with 19 layers and batch norm, for small images."""

from __future__ import annotations

from torch import nn

from ._parts import conv3x3, image_channels, pool, spread

__all__ = ["vgg19_bn"]

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions between two poolings


def vgg19_bn(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Sixteen convolutions with batch norm, in five stages that end in 2 x 2 max pooling, and three linear layers.

    The head is dropout, 512 to 512, ReLU, dropout, 512 to 512, ReLU, 512 to classes; each dropout drops half of the
    units, so that two passes of a step see one network only if they draw the same masks.

    Args:
        shape: shape of one sample, ``(channels, height, width)``; height and width at least 32. After five
            poolings the mean over the places that are left is taken; at 32 x 32 there is one.
        classes: number of classes.

    Returns:
        A module from ``(n, *shape)`` to logits ``(n, classes)``. Weights of convolutions are normal with variance 2 /
        fan-out and their biases zero; the linear layers are as PyTorch makes them.

    Raises:
        ValueError: a shape that is no image, or one that five poolings leave nothing of.

    Source:
        Simonyan and Zisserman (2015), configuration E, with batch norm; head and initialisation as in the public code
        of Xie et al. (2024).

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
