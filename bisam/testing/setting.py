"""What the checks are made on: small networks, a batch, the candidate, and SAM spelled out in float64, without the library."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Objective"]

N, FEATURES, HIDDEN, CLASSES = 12, 8, 16, 5


class NotApplicable(Exception):
    """A check that does not apply to a candidate, with the reason."""


class Objective:
    r"""The loss of a model on one batch, as a function of the model.

    .. math:: w \mapsto \frac{s}{n} \sum_{i=1}^n \ell\big(f_w(x_i), y_i\big)

    Args:
        inputs: samples, shape ``(n, d)``.
        targets: classes, shape ``(n,)``.
        autocast: the type of the forward pass in mixed precision, or ``None``.
        share: the factor :math:`s`; that of a part of a batch is its part of the samples.
        parts: what adds up to this loss, for who adds up gradients; by default it has one part, itself.

    Example:
        >>> whole = Objective(torch.eye(4), torch.arange(4))
        >>> halves = whole.in_parts(2)
        >>> round(sum(part(nn.Identity()) for part in halves.parts).item() - whole(nn.Identity()).item(), 6)
        0.0
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, autocast: torch.dtype | None = None, share: float = 1.0, parts: list[Objective] | None = None
    ):
        self.inputs, self.targets, self.autocast, self.share = inputs, targets, autocast, share
        self.parts = parts or [self]

    def __call__(self, model: nn.Module) -> Tensor:
        with torch.autocast(self.inputs.device.type, self.autocast) if self.autocast else nullcontext():
            loss = functional.cross_entropy(model(self.inputs), self.targets)
        return loss if self.share == 1 else self.share * loss

    def in_parts(self, count: int) -> Objective:
        """The same loss, to be gone through in parts."""
        places = torch.arange(len(self.targets)).tensor_split(count)
        parts = [Objective(self.inputs[p], self.targets[p], self.autocast, len(p) / len(self.targets)) for p in places]
        return Objective(self.inputs, self.targets, self.autocast, parts=parts)


@dataclass(frozen=True)
class Candidate:
    """An optimiser that is looked at: how it is made, and how it is driven."""

    factory: Callable
    style: Callable
    rho: float
    is_sam: bool

    def made(self, model: nn.Module, base: type = torch.optim.SGD, params: list | None = None, rho: float | None = None, **more):
        """The optimiser of a model, or of some of its parameters or groups of them."""
        params = list(model.parameters()) if params is None else params
        more |= {"model": model} if "model" in inspect.signature(self.factory).parameters else {}
        return self.factory(params, base, rho=self.rho if rho is None else rho, **({"lr": 0.1} | more))

    def trained(self, optimizer, model: nn.Module, steps=range(5), **more) -> nn.Module:
        """The model after some steps, each on a batch of its own."""
        for k in steps:
            self.style(optimizer, model, samples(k, dtype=model[-1].weight.dtype, **more))
        return model


def samples(k: int = 0, dtype: torch.dtype = torch.float64, autocast: torch.dtype | None = None) -> Objective:
    """The k-th batch, always the same."""
    source = torch.Generator().manual_seed(100 + k)
    inputs = torch.randn(N, FEATURES, generator=source, dtype=torch.float64).to(dtype)
    return Objective(inputs, torch.randint(CLASSES, (N,), generator=source), autocast)


def net(*between: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two linear layers with tanh and what is given between them; always the same weights, whatever the seed."""
    model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), *between, nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).to(dtype)
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=source, dtype=torch.float64))
    return model


def flat(model: nn.Module) -> Tensor:
    """A copy of all weights in one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gap(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two weights; infinite where one is no number."""
    return largest(flat(one) - flat(other))


def largest(difference: Tensor) -> float:
    """The largest entry in size, infinite if one is no number."""
    return difference.abs().nan_to_num(torch.inf).max().item()


def sam_by_hand(model: nn.Module, base: torch.optim.Optimizer, rho: float, steps=range(5), **more) -> nn.Module:
    r"""SAM by a plain loop.

    .. math:: \epsilon = \rho\,\nabla L(w) / \lVert\nabla L(w)\rVert_2, \qquad w \leftarrow \mathrm{base}\big(w, \nabla L(w + \epsilon)\big)

    Source:
        Foret et al. (2021), algorithm 1.
    """
    for k in steps:
        loss_fn = samples(k, dtype=model[-1].weight.dtype, **more)
        base.zero_grad()
        loss_fn(model).backward()
        climbing = [p for p in model.parameters() if p.grad is not None]
        norm = torch.sqrt(sum(p.grad.square().sum() for p in climbing))
        before = [p.detach().clone() for p in climbing]
        with torch.no_grad():
            for p in climbing:
                p.add_(p.grad * (rho / norm))
        base.zero_grad()
        loss_fn(model).backward()
        with torch.no_grad():
            for p, old in zip(climbing, before, strict=True):
                p.copy_(old)
        base.step()
    return model


def climbs(candidate: Candidate, model: nn.Module, loss_fn: Objective) -> list[Tensor]:
    """One step with a base that does not move: the weights at each pass through the model, less those before the step."""
    before, seen = flat(model), []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(flat(model) - before))
    candidate.style(candidate.made(model, lr=0.0), model, loss_fn)
    hook.remove()
    return seen


def furthest(candidate: Candidate, model: nn.Module, loss_fn: Objective) -> Tensor:
    """The longest way from w of all passes."""
    return max(climbs(candidate, model, loss_fn), key=lambda away: away.norm().item())
