r"""The surrogate of the published bounds, in few operations.

With :math:`w = e^F` and :math:`c = e^\gamma`, -log has :math:`e^{\phi - 1} = w / (w + c)` and :math:`\phi' = c / (w + c)`. With
:math:`v = e^{-2 \alpha F}`, tanh has :math:`\phi - 1 = -2 v / (1 + v)` and :math:`\phi' = 4 \alpha v / (1 + v)^2`. All are quotients of
positive numbers: nothing cancels.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from .. import _look
from .bounds import Bound, NegLog, Tanh

NEAR = 24.0  # a margin (of -log: times mu) up to here loses no more than 3e-6 of its exponential where float32 rounds it
_LOG2_E = math.log2(math.e)
_LARGEST = 88.3  # e^x leaves float32 just beyond


def cast(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)  # a call that changes nothing costs as much as a small operation


def is_taken_apart(logits: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation looks inside, which needs the formula that can be differentiated again."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:  # the quick answer to nearly every call
        return False
    return forward_ad.unpack_dual(logits).tangent is not None


def reach_of(phi: Bound, mu: float) -> float | None:
    """How far a margin may lie so that float32 loses a few roundings and no more; ``None`` where other numbers are too delicate."""
    if not 1 <= mu <= 10:  # a small mu magnifies the rounding of q, a large one that of phi
        return None
    if type(phi) is NegLog and mu % 0.5 == 0 and phi.gamma <= 2:  # the power mu is a product of roots
        return NEAR / mu
    return NEAR if type(phi) is Tanh and phi.alpha <= 0.25 else None  # a subclass may have another formula


def near_margins(logits: Tensor, true: Tensor, reach: float | None) -> Tensor | None:
    """The margins in float32, if all are so near that their rounding does not matter; where no look is free, in float64.

    ``None`` where they are not near, where nothing quick is offered, where an argument is wrong, and where something looks inside.
    """
    if reach is None or torch.compiler.is_compiling() or logits.dtype == torch.float64 or is_taken_apart(logits):
        return None
    if not _look.is_free(logits):
        scores = logits.detach().double()
        return scores - scores.gather(-1, true)
    scores = cast(torch.float32, logits.detach())
    try:
        margin = scores - scores.gather(-1, true)
    except RuntimeError:  # a class that does not exist, which the checks say in better words
        return None
    low, high = torch.aminmax(margin)
    return margin if -reach < low.item() and high.item() < reach else None  # false for NaN


def few_operations(margin: Tensor, true: Tensor, phi: Bound, mu: float, halves: int, mean: bool | None):
    """For eager steps, where a call costs more than what it computes: near margins, or any in float64; they are overwritten."""
    number = _number if margin.dtype == torch.float32 else float
    if type(phi) is NegLog:
        slope = math.exp(phi.gamma)
        weight = _exp2_(margin.mul_(number(_LOG2_E)))
        beside = weight + number(slope)
        share = _power(weight.div_(beside), halves)
        total = share.sum(-1, keepdim=True)
        pull = share.div_(beside)
    else:
        slope = 4 * phi.alpha
        weight = _exp2_(margin.mul_(number(-2 * phi.alpha * _LOG2_E)))
        beside = weight + number(1.0)
        weight.div_(beside)
        share = torch.mul(weight, number(-2 * mu * _LOG2_E)).exp2_()
        total = share.sum(-1, keepdim=True)
        pull = share.mul_(weight).div_(beside)
    value = None if mean is None else _log_mean_of_near(total, mu, margin.shape[-1], mean)
    pull.scatter_(-1, true, 0.0)  # summed with the others, the true term would swallow them
    pull.scatter_(-1, true, pull.sum(-1, keepdim=True).neg_())
    return value, pull, total, slope


def _exp2_(x: Tensor) -> Tensor:
    """2 to the power x, twice as quick as e; far margins stay within the range of float64, beyond which float32 sees no difference."""
    return x.exp2_() if x.dtype == torch.float32 else x.clamp_(-1000, 1000).exp2_()


@functools.lru_cache(maxsize=64)
def _number(value: float) -> Tensor:
    """A number as a tensor: made at every call, it would cost more than what is done with it."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def few_passes(logits: Tensor, true: Tensor, phi: Bound, mu: float, halves: int, mean: bool | None):
    """For the compiler, which makes one loop of many operations: any margin, with what float32 rounds away brought back."""
    scores = logits.float()
    margin, rest = _difference(scores, scores.gather(-1, true))
    if type(phi) is NegLog:
        weight, constant = _exponential(margin, rest, 1.0), math.exp(phi.gamma)
        beside = 1 / (weight + constant)
        share, slope, rate = _power(weight * beside, halves), beside, constant
    else:
        weight = _exponential(margin, rest, -2 * phi.alpha)
        beside = 1 / (weight + 1)
        behind = weight * beside
        share, slope, rate = torch.exp(-2 * mu * behind), behind * beside, 4 * phi.alpha
    total, pull = share.sum(-1, keepdim=True), _balanced(share * slope, true, by_mask=not scores.is_cpu)
    value = None if mean is None else _log_mean(total, mu, scores.shape[-1])
    return value.mean() if mean else value, pull, total, rate


def _balanced(pull: Tensor, true: Tensor, by_mask: bool) -> Tensor:
    """The pull of the other classes, and in the true column minus their sum.

    With masks alone it is one kernel, which a GPU likes; but then the pull is computed twice, and a CPU had rather write it once.
    """
    is_true = torch.arange(pull.shape[-1], device=pull.device) == true
    pull = torch.where(is_true, 0.0, pull) if by_mask else pull.scatter(-1, true, 0.0)
    return torch.where(is_true, -pull.sum(-1, keepdim=True), pull)


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a - b, and what its rounding left out (Knuth's two-sum)."""
    found = a - b
    minus_b = found - a
    rest = (a - (found - minus_b)) - (b + minus_b)
    return found, torch.where(found.abs() < 1e30, rest, 0.0)


def _exponential(x: Tensor, rest: Tensor, rate: float) -> Tensor:
    """e^(rate (x + rest)) to a few roundings, although float32 rounds the product (Dekker's product, by halves of 12 bits)."""
    x = x.clamp(-_LARGEST / abs(rate), _LARGEST / abs(rate))
    if rate == 1:
        return torch.exp(x) * (1 + rest)
    mantissa, exponent = math.frexp(rate)
    upper_rate = math.ldexp(round(mantissa * 2**12), exponent - 12)
    split = 4097.0 * x
    upper = split - (split - x)
    product = rate * x
    lost = (upper * upper_rate - product) + (upper * (rate - upper_rate) + (x - upper) * rate + rest * rate)
    return torch.exp(product) * (1 + lost)


def _power(x: Tensor, halves: int) -> Tensor:
    """x to the power halves / 2, at least 1: a general power costs ten times as much."""
    if halves == 2:
        return x
    found = torch.sqrt(x).mul_(x) if halves % 2 else x * x
    for _ in range((halves - 3) // 2 if halves % 2 else (halves - 4) // 2):
        found = found.mul_(x)
    return found


def _log_mean(total: Tensor, mu: float, classes: int) -> Tensor:
    """q of each sample from the sums of e^(mu (phi - 1))."""
    value = torch.log(total).squeeze(-1) * (1 / mu) + (1 - math.log(classes) / mu)
    # Rounding must not lift q above the 0-1 loss: q is 0 when all classes tie, and that is as high as it may be.
    return functional.hardshrink(value, 8 * torch.finfo(value.dtype).eps).clamp(max=1)


def _log_mean_of_near(total: Tensor, mu: float, classes: int, mean: bool) -> Tensor:
    """The same or its mean, of which the last operations are Python's own: those of a tensor take ten times as long."""
    if not mean or not _look.is_free(total):
        value = _log_mean(total, mu, classes)
        return value.mean() if mean else value
    found = torch.log(total).sum()  # a mean is two operations
    value = found.item() / len(total) / mu + 1 - math.log(classes) / mu
    return found.fill_(value if abs(value) > 8 * torch.finfo(found.dtype).eps else 0.0)
