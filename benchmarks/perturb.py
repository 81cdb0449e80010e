"""Climbing and coming back: entering and leaving ``perturbed``, in passes over the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import models
import torch
from harness import Candidate, Case, Settings
from torch import Tensor, nn

import bisam

RECIPES = ("sam", "bisam-log", "asam")
RADIUS = 0.05


def cases(settings: Settings, nets: dict[str, models.Net] | None = None) -> Iterator[Case]:
    """One case for each network; what it is fed does not matter."""
    for net in models.many_and_large(nets or models.nets(settings.device)):
        yield _case(settings, net)


def _case(settings: Settings, net: models.Net) -> Case:
    model, _, _ = net.on(settings.device, settings.seed)
    weights = list(model.parameters())
    gradients = [torch.randn_like(weight) for weight in weights]
    restore = _restore(weights, gradients)
    found = [
        Candidate("one pass", _one_pass(weights), restore),
        Candidate("naive loop", _naive(weights), restore),
        *(Candidate(f"bisam {name}", _climb(model, name), restore) for name in RECIPES),
    ]
    if len(weights) < 20:  # assigning the gradients costs time of its own, which many small tensors would show
        leave = _restore(weights, gradients, fresh=False)
        found.append(Candidate("bisam sam, gradients left", _climb(model, "sam", leave), restore))
    return Case("perturb", net.name, "one pass: _foreach_mul_(copies, 1.0)", found, facts=models.size(model))


def _restore(weights: list[nn.Parameter], gradients: list[Tensor], fresh: bool = True) -> Callable[[], None]:
    """Puts gradients in place. Copies, as backward makes them: the climb may use up the tensors that it finds."""

    def run() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone() if fresh else gradient

    return run


def _one_pass(weights: list[nn.Parameter]) -> Callable[[], None]:
    copies = [weight.detach().clone() for weight in weights]
    return lambda: torch._foreach_mul_(copies, 1.0)


def _naive(weights: list[nn.Parameter]) -> Callable[[], None]:
    """The climb of SAM parameter by parameter, without any check."""

    @torch.no_grad()
    def run() -> None:
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
        start = {}
        for weight in weights:
            start[weight] = weight.clone()
            weight.add_(weight.grad * (RADIUS / (norm + 1e-12)))
            weight.grad = None
        for weight in weights:
            weight.copy_(start[weight])

    return run


def _climb(model: nn.Module, name: str, inside: Callable[[], None] = lambda: None) -> Callable[[], None]:
    recipe = bisam.recipe(name).replace(ascent=None)  # the gradient is made up, and may be that of any loss
    optimizer = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)

    def run() -> None:
        with optimizer.perturbed(model):
            pass
        inside()

    return run
