"""Labels that are wrong on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _checks

__all__ = ["READINGS", "symmetric_noise"]

READINGS = ("other", "any")


def symmetric_noise(targets: Tensor, rate: float, classes: int, seed: int, reading: str = "other") -> Tensor:
    r"""Labels of which a share has been redrawn uniformly.

    Exactly ``round(rate * n)`` labels are redrawn. Published tables say "noise rate" for two things: under ``"other"`` a redrawn label is always
    wrong; under ``"any"`` the true class is in the draw too, and the share of wrong labels is :math:`r\,(K - 1) / K`.

    Args:
        targets: true classes, shape ``(n,)``, whole numbers.
        rate: share r of the labels to redraw, in [0, 1).
        classes: number of classes K, at least 2.
        seed: which labels and which classes; the same seed gives the same labels.
        reading: ``"other"`` draws among the K - 1 wrong classes, ``"any"`` among all K.

    Returns:
        New labels, shape ``(n,)``; the given ones are left alone.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        The "other" reading is that of Xie et al. (2024), appendix A.3 of the early version, as its text has it.

    Example:
        >>> clean = torch.zeros(10, dtype=torch.int64)
        >>> int((symmetric_noise(clean, 0.4, classes=10, seed=0) != clean).sum())
        4
    """
    _checks.labels(targets)
    rate, classes = _checks.fraction("rate", rate), _checks.whole("classes", classes, least=2)
    seed = _checks.whole("seed", seed, least=0)
    _checks.choice("reading", reading, READINGS)
    _checks.in_range(targets, classes)
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(targets), generator=draw)[: round(rate * len(targets))]
    noisy = targets.clone()
    if reading == "any":
        noisy[chosen] = torch.randint(0, classes, chosen.shape, generator=draw)
    else:
        noisy[chosen] = (targets[chosen] + torch.randint(1, classes, chosen.shape, generator=draw)) % classes
    return noisy
