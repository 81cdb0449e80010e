"""The surrogate of distributions over the classes: the mean over the classes, and the mean of the gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .formula import at_least_float32
from .fused import cast, near_margins
from .targets import slots

if TYPE_CHECKING:
    from .surrogate import Surrogate


def sum_over_classes(surrogate: Surrogate, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The expected q, shape (n,), and its gradient, shape (n, K), without a graph: samples with one class each, some at a time."""
    values, gradient = 0.0, 0.0
    certain = logits.argmax(-1, keepdim=True)  # has a finite score: for classes without a share, whose own may be minus infinity
    for true, share in slots(targets.detach()):
        true, rows = _one_class_each(logits, torch.where(share > 0, true, certain))
        value, pull, total, rate = surrogate.parts(rows, true, near_margins(rows, true, surrogate.reach), mean=False)
        values = values + (value.view(share.shape) * share).sum(1)
        weights = (share * rate).unsqueeze(-1) / total.view(*share.shape, 1)
        gradient = gradient + (pull.view(*share.shape, -1) * weights).sum(1)
    return values, gradient


class ExpectedQ(torch.autograd.Function):
    """The expected q of each sample, shape (n,), with its gradient found in the same pass."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, surrogate: Surrogate) -> Tensor:
        value, gradient = sum_over_classes(surrogate, logits, targets)
        ctx.surrogate = surrogate
        ctx.save_for_backward(logits, targets, gradient)
        return cast(at_least_float32(logits), value)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        logits, targets, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            gradient = mean_over_classes(ctx.surrogate, logits, targets)[1]
        return cast(logits.dtype, gradient * upstream.unsqueeze(-1)), None, None


def _one_class_each(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Classes of shape (n, c) as (n c, 1), and for each the logits of its sample, shape (n c, K)."""
    copies = logits.unsqueeze(1).expand(-1, true.shape[1], -1)
    return true.reshape(-1, 1), copies.reshape(-1, logits.shape[-1])


def mean_over_classes(surrogate: Surrogate, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The expected q and its gradient in float64, differentiable themselves."""
    every = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape)
    true, rows = _one_class_each(logits, every)
    value, gradient = surrogate.by_formula(rows, true.squeeze(-1))
    share = targets.double()
    return (value.view(share.shape) * share).sum(1), (gradient.view(*share.shape, -1) * share.unsqueeze(-1)).sum(1)
