"""Networks, as plain functions that return modules."""

from __future__ import annotations

from torch import nn

from .. import _checks
from .conv import small_conv
from .mlp import mlp

__all__ = ["MODELS", "build", "mlp", "small_conv"]

MODELS = {"small_conv": small_conv, "mlp": mlp}


def build(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The named network for samples of a shape, initialised from torch's global random state.

    Args:
        name: one of ``MODELS``.
        shape: shape of one sample, ``(channels, height, width)``.
        classes: number of classes.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Source:
        The function of that name.

    Example:
        >>> sum(p.numel() for p in build("small_conv", (1, 8, 8), 10).parameters())
        15418
    """
    return MODELS[_checks.choice("model", name, tuple(MODELS))](shape, classes)
