"""Networks, as plain functions that return modules."""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import _checks
from .airbench import ENOUGH, airbench
from .conv import small_conv
from .densenet import densenet121
from .mlp import mlp
from .resnet import cifar_resnet, resnet18
from .vgg import vgg19_bn
from .wide_resnet import wide_resnet

__all__ = ["MODELS", "airbench", "build", "cifar_resnet", "densenet121", "mlp", "resnet18", "small_conv", "vgg19_bn", "wide_resnet"]

MODELS = {
    "small_conv": small_conv,
    "mlp": mlp,
    "airbench": airbench,
    "airbench-narrow": partial(airbench, widths=(24, 48, 64)),
    "airbench-wide": partial(airbench, widths=(64, 256, 256)),  # those of Jordan (2024)
    **{f"resnet{depth}": partial(cifar_resnet, depth=depth) for depth in (8, 20, 32, 56)},
    **{f"resnet{depth}-b": partial(cifar_resnet, depth=depth, shortcut="B") for depth in (8, 20, 32, 56)},
    "resnet18": resnet18,
    "vgg19-bn": vgg19_bn,
    "densenet121": densenet121,
    # What Xie et al. (2024) call WRN-28 has 34 layers in their public code; both are here under their true depths.
    **{f"wrn-{d}-{width}": partial(wide_resnet, depth=d, width=width) for d in (28, 34) for width in (2, 10)},
}
PREPARED = ENOUGH  # training images that a network may look at before the first step, in ``net.prepare(images)``


def build(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The named network for samples of a shape, initialised from torch's global random state.

    Args:
        name: one of ``MODELS``.
        shape: shape of one sample, ``(channels, height, width)``.
        classes: number of classes.

    Raises:
        ValueError: an unknown name, and the message lists those that exist; or a shape that the network cannot take.

    Source:
        The function of that name.

    Example:
        >>> sum(p.numel() for p in build("small_conv", (1, 8, 8), 10).parameters())
        15418
    """
    return MODELS[_checks.choice("model", name, tuple(MODELS))](shape, classes)
