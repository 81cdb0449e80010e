"""The surrogate by its formula in float64: for every bound and temperature, and differentiable itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .bounds import Bound

_NO_SHARE = -1000.0  # a class so far below the others has a share of 0 in float64
FORMS = ("mellowmax", "boltzmann")
OVER = ("classes", "rivals")


def at_least_float32(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def value_and_gradient(
    logits: Tensor, targets: Tensor, phi: Bound, mu: float, form: str = "mellowmax", over: str = "classes"
) -> tuple[Tensor, Tensor]:
    """Per-sample q, shape (n,), and its gradient for the logits, shape (n, K), both in float64.

    For every phi and mu, and differentiable itself. Float64 has digits to spare for the rounding of far margins and for
    what a large mu makes of the rounding of phi.
    """
    scores, true = logits.double(), targets.unsqueeze(-1)
    # The true column is a constant 0: summed with the others, its own term would swallow them.
    margin = _within_range(scores - scores.gather(-1, true)).scatter(-1, true, 0.0)
    height = phi(margin)
    z = _within_range(mu * height)
    counted = z if over == "classes" else z.scatter(-1, true, -torch.inf)
    top = counted.detach().amax(-1, keepdim=True)  # with the true class at least mu * phi(0): the exponentials below never overflow
    weight = torch.exp(counted - top)
    total = weight.sum(-1, keepdim=True)
    share = weight / total
    if form == "mellowmax":
        classes = weight.shape[-1] - (over == "rivals")
        value = ((top + torch.log(total / classes)) / mu).squeeze(-1)
        rate = share
    else:
        bounded = _within_range(height)
        value = (share * bounded).sum(-1)
        most = bounded.masked_fill(weight == 0, -torch.inf).amax(-1)
        value = value - (value - most).clamp(min=0).detach()  # rounding must not lift a mean above the largest
        mean = (share * z).sum(-1, keepdim=True)
        rate = share * (1 + (z - mean).clamp(min=_NO_SHARE))
    pull = (rate * phi.derivative(margin)).scatter(-1, true, 0.0)
    return value, pull.scatter(-1, true, -pull.sum(-1, keepdim=True))


def _within_range(x: Tensor) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)
