"""What the networks for images share: the check of their arguments, 3 x 3 convolutions, and the head."""

from __future__ import annotations

from torch import nn

from ... import _checks


def image_channels(model: str, shape: object, classes: object, least: int = 1) -> int:
    """The number of channels of a sample of the shape, or an error that says which shapes the network can take."""
    wanted = f"shape must be (channels, height, width), whole numbers, height and width at least {least} for {model}"
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"{wanted}; got {_checks.shown(shape)}")
    sizes = sample_shape(shape, classes)
    if min(sizes[1:]) < least:
        raise ValueError(f"{wanted}; got {sizes}")
    return sizes[0]


def sample_shape(shape: object, classes: object) -> tuple[int, ...]:
    """The shape of a sample, after a check of it and of the number of classes."""
    _checks.whole("classes", classes)
    return _checks.each("shape", shape, each_of=_checks.whole)


def conv3x3(inside: int, outside: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps height and width, or halves them and rounds up."""
    return nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=bias)


def pooled(features: int, classes: int) -> list[nn.Module]:
    """The mean over all places, and one linear layer."""
    return [*pool(), nn.Linear(features, classes)]


def pool() -> list[nn.Module]:
    """The mean over all places: a vector of features, whatever height and width were."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def spread(net: nn.Module, mode: str, kinds: tuple[type, ...] = (nn.Conv2d,)) -> None:
    """Normal weights of variance 2 / fan, where the fan counts inputs (``fan_in``) or outputs (``fan_out``)."""
    for module in net.modules():
        if isinstance(module, kinds):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
