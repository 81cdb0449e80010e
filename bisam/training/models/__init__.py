"""Networks, as plain functions of the shape of a sample and the number of classes, and more.

Each returns a module from ``(n, *shape)`` to logits ``(n, classes)``. A shape that it cannot take (no image, or one that its poolings leave
nothing of) or another argument out of range is a ``TypeError`` or ``ValueError`` that says what can be taken. Those for language take the
inputs of a sample by name, and their shapes are dictionaries.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from ... import _checks
from ...training import own_code
from . import encoder, seq2seq, vision
from .airbench import ENOUGH, airbench
from .densenet import densenet121
from .plain import mlp, small_conv, vgg19_bn
from .residual import cifar_resnet, resnet18, wide_resnet
from .vision import resnet50, vit_b_16, vit_tiny

__all__ = [
    "MODELS", "airbench", "build", "check_name", "cifar_resnet", "densenet121", "find", "from_file", "mlp", "resnet18", "resnet50", "small_conv", "sources",
    "vgg19_bn", "vit_b_16", "vit_tiny", "wide_resnet",
]  # fmt: skip

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
    "resnet50": resnet50,
    "vit-b-16": vit_b_16,
    "vit-tiny": vit_tiny,
}
PRETRAINED = {vision.NAME: vision.vit_b_16_imagenet}
LANGUAGE = {
    "encoder-tiny": encoder.tiny,
    "seq2seq_small": seq2seq.seq2seq,
    "seq2seq_tiny": partial(seq2seq.seq2seq, width=32, heads=2, layers=1, hidden=64),
}
PREPARED = ENOUGH  # training images that a network may look at before the first step, in ``net.prepare(images)``


def check_name(name: object) -> str:
    """The name of a network, or a ``ValueError`` that lists what is allowed; nothing is imported.

    Args:
        name: one of ``MODELS``, ``LANGUAGE`` or ``PRETRAINED``, ``"encoder:FOLDER"``, or the path of a function ``(shape, classes) -> Module``,
            ``"package.module:function"``; an entry point of the group ``bisam.models`` becomes its path.

    Example:
        >>> check_name("mlp"), check_name("my_lab.networks:narrow")
        ('mlp', 'my_lab.networks:narrow')
    """
    if isinstance(name, str) and (name in MODELS or name in LANGUAGE or name in PRETRAINED or re.fullmatch(encoder.NAMES, name)):
        return name
    if (path := own_code.path_of("model", name)) is None:
        there = ", ".join([*MODELS, *LANGUAGE, f"{encoder.PREFIX}FOLDER", *own_code.names("model")])
        raise ValueError(f"model must be one of {there}, or MODULE:FUNCTION; got {_checks.shown(name)}")
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
    name = check_name(name)
    if name.startswith(encoder.PREFIX):
        return partial(encoder.encoder, name)
    if name in MODELS or name in LANGUAGE or name in PRETRAINED:
        return MODELS.get(name) or LANGUAGE.get(name) or PRETRAINED[name]
    own = own_code.function("model", name)
    try:
        inspect.signature(own).bind((1, 8, 8), 10)
    except TypeError as error:
        raise TypeError(f"model {name!r} must take the shape of a sample and the number of classes: {error}") from None
    return own


def from_file(name: str) -> bool:
    """Whether a network begins with weights that are read from a file below the root; nothing is looked at.

    Args:
        name: as for :func:`check_name`.

    Example:
        >>> from_file("vit-b-16:imagenet"), from_file("vit-b-16")
        (True, False)
    """
    return (name := check_name(name)) in PRETRAINED or name.startswith(encoder.PREFIX)


def build(name: str, shape: tuple[int, ...] | dict[str, tuple[int, ...]], classes: int, root: str | Path | None = None) -> nn.Module:
    """The named network for samples of a shape, initialised from torch's global random state or from a file of weights.

    Args:
        name: as for :func:`check_name`.
        shape: shape of one sample, ``(channels, height, width)``, or of each input of it by name, ``{"input_ids": (length,), ...}``.
        classes: number of classes.
        root: folder of the data sets, which weights are read below.

    Raises:
        TypeError, ValueError: an unknown name, a shape that the network cannot take, or a function of one's own that returns no module.
        DataError: the weights are not there, or broken.

    Example:
        >>> sum(p.numel() for p in build("small_conv", (1, 8, 8), 10).parameters())
        15418
    """
    make, root = find(name), _checks.optional("root", root, of=_checks.path, words="the path of a folder")
    found = make(shape, classes, root) if from_file(name) else make(shape, classes)
    return _checks.part(f"what model {_checks.plain(name)} returns", found, nn.Module, "a torch.nn.Module")


def sources(name: str, root: str | Path | None = None) -> dict[str, str]:
    """Of a network that begins with weights of a file the first 16 digits of a SHA-256 of that file, by its name; of others nothing.

    Args:
        name: as for :func:`check_name`.
        root: folder of the data sets, which weights are read below.

    Raises:
        TypeError, ValueError: an unknown name.
        DataError: the weights are not there, or broken.

    Example:
        >>> sources("mlp")
        {}
    """
    name, root = check_name(name), _checks.optional("root", root, of=_checks.path, words="the path of a folder")
    if not from_file(name):
        return {}
    return {name: vision.digest(root) if name in PRETRAINED else encoder.digest(name, root)}
