r"""Targets that are distributions over the classes: mixup, cutmix, a teacher's probabilities, smoothed labels.

.. math:: \ell(f, t) = \sum_{k=1}^K t_k\,\ell(f, k), \qquad t_k \ge 0,\quad \sum_k t_k = 1

A loss of a class becomes one of a distribution by its mean. What holds for every class then holds for the means:
:math:`q(f, k) \le \ell^{01}(f, k)` gives :math:`\sum_k t_k\,q(f, k) \le \sum_k t_k\,\ell^{01}(f, k)`, the expected 0-1 loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import _checks, _look

ENTRIES = 2**22  # so many logits are copied at a time


def are_soft(targets: Tensor) -> bool:
    """Whether targets are distributions over the classes, and not class numbers."""
    return targets.is_floating_point()


def check_shapes(logits: Tensor, targets: Tensor) -> None:
    """Logits of shape (n, K), and targets of shape (n,) or, as distributions, (n, K)."""
    if not isinstance(targets, Tensor) or not are_soft(targets) or targets.ndim < 2:
        return _checks.score_shapes(logits, targets)
    _checks.score_shapes(logits, torch.zeros(len(targets), dtype=torch.int64))
    if targets.shape != logits.shape:
        raise ValueError(f"targets must have shape {tuple(logits.shape)}, a distribution over the classes a sample; got {tuple(targets.shape)}")


def check_values(logits: Tensor, targets: Tensor, true_is_finite: bool = False) -> None:
    """No NaN or +inf among the logits, and targets that exist; looked at where a look is free."""
    check_logits(logits, targets, true_is_finite)
    if are_soft(targets) and logits.device.type == "cpu" and not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(targets):
        check_distributions(targets)


def check_logits(logits: Tensor, targets: Tensor, true_is_finite: bool = False) -> None:
    """:func:`check_values` for targets whose shares may be weighted."""
    if are_soft(targets):
        targets, true_is_finite = torch.zeros(len(logits), dtype=torch.int64, device=logits.device), False
    _checks.score_values(logits, targets, true_is_finite)


def check_distributions(targets: Tensor, axis: int = -1) -> None:
    """Shares that are 0 or greater and sum to 1 along the axis of the classes; reads numbers."""
    total = targets.detach().float().sum(axis)
    least, off = float(targets.detach().amin()), float((total - 1).abs().amax())
    if not (least >= 0 and off <= 0.02):  # half precision sums a thousand shares to within a hundredth
        raise ValueError(
            "targets of floating point must be distributions over the classes, shares from 0 that sum to 1; got "
            f"a smallest share of {least:.4g} and a sum that is off by {off:.4g}; weights of classes and samples belong to the batch"
        )


def slots(targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Classes and their shares, each of shape (n, c), until all classes with a share have come.

    Where a look is free, classes that no sample has a share of are left out: of mixup two of a thousand are left.
    """
    n, classes = targets.shape
    if _look.is_free(targets) and not torch.compiler.is_compiling():
        share, true = targets.topk(max(1, int((targets != 0).sum(1).max())), dim=1)
    else:
        share, true = targets, torch.arange(classes, device=targets.device).expand(n, classes)
    yield from zip(*(part.split(max(1, ENTRIES // math.prod(targets.shape)), dim=1) for part in (true, share)), strict=True)


def checked_weights(weights: Tensor, targets: Tensor, rows: tuple[int, ...]) -> Tensor:
    """Weights of the samples or of the entries of the targets, as numbers of floating point."""
    _checks.part("weights", weights, Tensor, "a tensor, one weight a sample")
    if weights.requires_grad or weights.is_complex() or tuple(weights.shape) not in {rows, (len(targets),)}:
        raise ValueError(
            f"weights must have shape ({len(targets)},), one number a sample, or {rows}, one a row, and no graph; "
            f"got {_checks.shown(weights)}"
        )
    if _look.is_free(weights) and not (float(weights.amin()) >= 0 and float(weights.sum()) > 0):
        raise ValueError(f"weights must be 0 or greater, and not all 0; got a smallest one of {float(weights.amin()):.4g}")
    return weights.to(torch.promote_types(weights.dtype, torch.float32))  # half precision cannot count to a hundred thousand
