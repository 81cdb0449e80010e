r"""The learning rate as a function of the step or of the epoch, after a warm-up.

.. math:: \eta_t = \eta \cdot \begin{cases} (t + 1) / W & t < W \\ s\big((t - W) / (T - W)\big) & t \ge W \end{cases}, \qquad
    s_{\text{cosine}}(u) = \tfrac12 (1 + \cos \pi u), \quad s_{\text{linear}}(u) = 1 - u, \quad s_{\text{constant}}(u) = 1, \quad
    s_{\text{step}}(u) = d^{\,\#\{m \in M:\, u \ge m\}}

for t = 0, ..., T - 1, with a warm-up of W steps, milestones M and decay d.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .run import Run

__all__ = ["factor", "scheduler"]


def factor(run: Run, t: int, total: int) -> float:
    """What the learning rate of a run is multiplied by at the step or epoch t, from 0, of so many.

    Args:
        run: its schedule, warm-up, milestones and decay.
        t: the number of the step, or of the epoch where the rate follows the epochs.
        total: how many there are.

    Source:
        Warm-up from one step's share on, so that no step has rate 0; Goyal et al. (2017) have it linear.

    Example:
        >>> from bisam.training import Run
        >>> warm = Run(schedule="linear", rate_by="step", warmup=2)
        >>> [factor(warm, t, 6) for t in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if t < run.warmup:
        return (t + 1) / run.warmup
    u = (t - run.warmup) / max(total - run.warmup, 1)
    if run.schedule == "cosine":
        return (1 + math.cos(math.pi * u)) / 2
    if run.schedule == "linear":
        return 1 - u
    if run.schedule == "step":
        return run.decay ** sum(u >= milestone for milestone in run.milestones)
    return 1.0


def scheduler(run: Run, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a run with so many steps in all, as one of torch's that is to be stepped after each step or epoch.

    Example:
        >>> from bisam.training import Run
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> scheduler(Run(schedule="constant"), sgd, 10).get_last_lr()
        [0.1]
    """
    if run.schedule == "cosine" and run.rate_by == "epoch":  # torch's recursion, to the bits of the older records
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=run.epochs)
    total = steps if run.rate_by == "step" else run.epochs
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: factor(run, t, total))
