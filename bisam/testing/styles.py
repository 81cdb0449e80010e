"""How optimisers are driven: one function a style, which makes one update of the weights.

A style of your own is a function ``step(optimizer, model, loss_fn)``. It evaluates the loss by ``loss_fn(model)``, which has a graph, or,
where it can add up gradients, each of ``loss_fn.parts`` so. If it takes ``scaler``, the checks of float16 apply to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..step import Batch, RNGState
from .setting import Objective

__all__ = ["backward_then_closure", "batch", "block", "closure", "function", "two_steps"]


def two_steps(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective) -> None:
    """Optimisers with ``first_step`` and ``second_step``, each called after a backward pass of the loop's own.

    Args:
        optimizer: the candidate.
        model: the network.
        loss_fn: its loss on a batch.

    Source:
        The public implementation davda54/sam, whose interface many others have.

    Example:
        >>> two_steps.__name__
        'two_steps'
    """
    _backward(model, loss_fn)
    optimizer.first_step(zero_grad=True)
    _backward(model, loss_fn)
    optimizer.second_step(zero_grad=True)


def backward_then_closure(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective) -> None:
    """Optimisers whose ``step(closure)`` follows a backward pass and makes the second one with the closure.

    Args:
        optimizer, model, loss_fn: as in :func:`two_steps`.

    Source:
        davda54/sam and pytorch_optimizer.

    Example:
        >>> backward_then_closure.__name__
        'backward_then_closure'
    """

    def again():
        optimizer.zero_grad()
        return _backward(model, loss_fn)

    _backward(model, loss_fn)
    optimizer.step(again)
    optimizer.zero_grad()


def closure(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective) -> None:
    """Optimisers that evaluate the loss themselves, as often as they need: ``step(closure)`` and nothing else.

    Args:
        optimizer, model, loss_fn: as in :func:`two_steps`. The closure clears the gradients and makes a backward pass, as for torch's LBFGS.

    Example:
        >>> model, loss_fn = nn.Linear(2, 2), Objective(torch.eye(2), torch.tensor([0, 1]))
        >>> closure(torch.optim.SGD(model.parameters(), lr=0.1), model, loss_fn)
    """

    def evaluate():
        optimizer.zero_grad()
        return _backward(model, loss_fn)

    optimizer.step(evaluate)


def batch(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective, scaler: torch.amp.GradScaler | None = None) -> None:
    """Ours in one line: ``step(Batch(model, x, y))``.

    Args:
        optimizer, model, loss_fn: as in :func:`two_steps`.
        scaler: a ``GradScaler`` for float16.

    Example:
        >>> from bisam import SharpnessAware
        >>> model, loss_fn = nn.Linear(2, 2), Objective(torch.eye(2), torch.tensor([0, 1]))
        >>> batch(SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1)), model, loss_fn)
    """
    parts = [Batch(model, part.inputs, part.targets, part.autocast) for part in loss_fn.parts]
    optimizer.step(parts, scaler=scaler)
    if scaler is not None:
        scaler.update()


def block(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective, scaler: torch.amp.GradScaler | None = None) -> None:
    """Ours with both passes in the loop: ``with perturbed(model)``.

    Args:
        optimizer, model, loss_fn, scaler: as in :func:`batch`.

    Example:
        >>> from bisam import SharpnessAware
        >>> model, loss_fn = nn.Linear(2, 2), Objective(torch.eye(2), torch.tensor([0, 1]))
        >>> block(SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1)), model, loss_fn)
    """
    optimizer.zero_grad()
    noise = RNGState()
    _backward(model, loss_fn, scaler)
    with optimizer.perturbed(model, noise, scaler=scaler):
        _backward(model, loss_fn, scaler)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def function(optimizer: torch.optim.Optimizer, model: nn.Module, loss_fn: Objective, scaler: torch.amp.GradScaler | None = None) -> None:
    """Ours with a function that returns the loss: ``step(descent=...)``.

    Args:
        optimizer, model, loss_fn, scaler: as in :func:`batch`.

    Example:
        >>> from bisam import SharpnessAware
        >>> model, loss_fn = nn.Linear(2, 2), Objective(torch.eye(2), torch.tensor([0, 1]))
        >>> function(SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1)), model, loss_fn)
    """
    optimizer.step(descent=lambda: loss_fn(model), scaler=scaler)
    if scaler is not None:
        scaler.update()


def _backward(model: nn.Module, loss_fn: Objective, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Adds the gradient of the loss, part by part, scaled if there is a scaler; returns the loss."""
    total = torch.zeros(())
    for part in loss_fn.parts:
        loss = part(model)
        (loss if scaler is None else scaler.scale(loss)).backward()
        total = total + loss.detach()
    return total
