"""Networks, as plain functions of the shape of a sample and the number of classes, and more.

Each returns a module from ``(n, *shape)`` to logits ``(n, classes)``. A shape that it cannot take (no image, or one that its poolings leave
nothing of) or another argument out of range is a ``TypeError`` or ``ValueError`` that says what can be taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn

from ... import _checks
from ...training import own_code
from .airbench import ENOUGH, airbench
from .densenet import densenet121
from .plain import mlp, small_conv, vgg19_bn
from .residual import cifar_resnet, resnet18, wide_resnet

__all__ = ["MODELS", "airbench", "build", "check_name", "cifar_resnet", "densenet121", "find", "mlp", "resnet18", "small_conv", "vgg19_bn", "wide_resnet"]

MODELS = {
    "small_conv": small_conv,
    "mlp": mlp,
    "airbench": airbench,
    "airbench-narrow": partial(airbench, widths=(24, 48, 64)),
    "airbench-medium": partial(airbench, widths=(32, 128, 192)),
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


def check_name(name: object) -> str:
    """The name of a network, or a ``ValueError`` that lists what is allowed; nothing is imported.

    Args:
        name: one of ``MODELS``, or the path of a function ``(shape, classes) -> Module``, ``"package.module:function"``; an entry point of the group
            ``bisam.models`` becomes its path.

    Example:
        >>> check_name("mlp"), check_name("my_lab.networks:narrow")
        ('mlp', 'my_lab.networks:narrow')
    """
    if isinstance(name, str) and name in MODELS:
        return name
    if (path := own_code.path_of("model", name)) is None:
        raise ValueError(f"model must be one of {', '.join([*MODELS, *own_code.names('model')])}, or MODULE:FUNCTION; got {_checks.shown(name)}")
    return path


def find(name: str) -> Callable[[tuple[int, ...], int], nn.Module]:
    """The function of a network, imported if it is not ours.

    Args:
        name: as for :func:`check_name`.

    Raises:
        TypeError, ValueError: an unknown name, a path that leads nowhere or to something that cannot be called with a shape and a number of classes.

    Example:
        >>> find("mlp") is mlp
        True
    """
    if (name := check_name(name)) in MODELS:
        return MODELS[name]
    own = own_code.function("model", name)
    try:
        inspect.signature(own).bind((1, 8, 8), 10)
    except TypeError as error:
        raise TypeError(f"model {name!r} must take the shape of a sample and the number of classes: {error}") from None
    return own


def build(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The named network for samples of a shape, initialised from torch's global random state.

    Args:
        name: one of ``MODELS``, or the path or entry point of a function.
        shape: shape of one sample, ``(channels, height, width)``.
        classes: number of classes.

    Raises:
        TypeError, ValueError: an unknown name, a shape that the network cannot take, or a function of one's own that returns no module.

    Example:
        >>> sum(p.numel() for p in build("small_conv", (1, 8, 8), 10).parameters())
        15418
    """
    return _checks.part(f"what model {_checks.plain(name)} returns", find(name)(shape, classes), nn.Module, "a torch.nn.Module")
