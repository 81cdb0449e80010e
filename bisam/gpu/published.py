r"""SAM and BiSAM as the published runs did them, the rival of the table of training times.

Written from the description of the public code of Xie et al. (2024):

.. math:: \frac1n \sum_i \frac1\mu \log \sum_j e^{\mu\,\phi(F_{ij})}, \qquad F_{ij} = f_j(x_i) - f_{y_i}(x_i)

The loss is by autograd, with a loop of Python over the samples that writes each row of margins in place; the climb goes parameter by
parameter; batch norm is switched to no momentum for the second pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..step.batch import Batch

MU, RHO, SMOOTHING = 1.5, 0.05, 0.1
GAMMA = math.log(math.e - 1)


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels, spelled out, the mean over the batch.

    Example:
        >>> smoothed(torch.zeros(2, 3), torch.tensor([0, 1]))
        tensor(1.0986)
    """
    classes = logits.shape[1]
    wanted = torch.full_like(logits, SMOOTHING / (classes - 1)).scatter_(1, targets[:, None], 1 - SMOOTHING)
    return -(wanted * functional.log_softmax(logits, 1)).sum(1).mean()


def by_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """The ascent loss of BiSAM (-log), with its loop over the samples.

    Example:
        >>> logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> bool((by_rows(logits, targets) - at_once(logits, targets)).abs() < 1e-6)
        True
    """
    margins = logits.clone()
    for i, target in enumerate(targets):
        margins[i] = logits[i] - logits[i, target]
    return _bounded(margins)


def at_once(logits: Tensor, targets: Tensor) -> Tensor:
    """The same with all margins at once."""
    return _bounded(logits - logits.gather(1, targets[:, None]))


def _bounded(margins: Tensor) -> Tensor:
    return (torch.log(torch.exp(MU * (1 + functional.logsigmoid(margins - GAMMA))).sum(1)) / MU).mean()


LOSSES = {"sam": smoothed, "bisam": by_rows}


def step(model: nn.Module, base: torch.optim.Optimizer, ascent: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """One update of the weights in two passes, parameter by parameter; the loss where it was taken.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step(model, base, by_rows, Batch(model, torch.eye(3), torch.tensor([0, 1, 0]))).shape
        torch.Size([])
    """
    _set_momentum(model, 0.1)
    base.zero_grad()
    ascent(model(batch.inputs), batch.targets).backward()
    homes = _climb(model, base)
    _set_momentum(model, 0.0)
    loss = smoothed(model(batch.inputs), batch.targets)
    loss.backward()
    for parameter, home in homes:
        parameter.data = home
    base.step()
    return loss.detach()


@torch.no_grad()
def _climb(model: nn.Module, base: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
    moved = [p for p in model.parameters() if p.grad is not None]
    scale = RHO / (torch.norm(torch.stack([p.grad.norm(p=2) for p in moved]), p=2) + 1e-12)
    homes = [(p, p.data.clone()) for p in moved]
    for parameter in moved:
        parameter.add_(parameter.grad * scale)
    base.zero_grad()
    return homes


def _set_momentum(model: nn.Module, value: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = value
