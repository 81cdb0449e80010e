"""The surrogate by its formula in float64: for every bound and temperature, and differentiable itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .bounds import Bound


def at_least_float32(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def value_and_gradient(logits: Tensor, targets: Tensor, phi: Bound, mu: float) -> tuple[Tensor, Tensor]:
    """Per-sample q, shape (n,), and its gradient for the logits, shape (n, K), both in float64.

    For every phi and mu, and differentiable itself. Float64 has digits to spare for the rounding of far margins and for
    what a large mu makes of the rounding of phi.
    """
    scores, true = logits.double(), targets.unsqueeze(-1)
    # The true column is a constant 0: summed with the others, its own term would swallow them.
    margin = _within_range(scores - scores.gather(-1, true)).scatter(-1, true, 0.0)
    z = _within_range(mu * phi(margin))
    top = z.detach().amax(-1, keepdim=True)  # at least mu * phi(0), so the exponentials below never overflow
    weight = torch.exp(z - top)
    total = weight.sum(-1, keepdim=True)
    value = ((top + torch.log(total / weight.shape[-1])) / mu).squeeze(-1)
    pull = (weight / total * phi.derivative(margin)).scatter(-1, true, 0.0)
    return value, pull.scatter(-1, true, -pull.sum(-1, keepdim=True))


def _within_range(x: Tensor) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)
