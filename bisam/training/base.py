"""The base optimiser of a run."""

from __future__ import annotations

import torch
from torch import nn

from ..methods.bsam import needs_variational
from ..methods.variational import Variational
from .run import Run


def base_optimizer(run: Run, model: nn.Module, samples: int) -> torch.optim.Optimizer:
    """SGD with momentum, or the base that bSAM brings with it."""
    if needs_variational(run.recipe):
        betas = (run.momentum, 0.999)
        return Variational(model.parameters(), run.lr, betas, samples=samples, prior=run.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay,
        fused=True if run.device.startswith("cuda") else None,  # skips a step by itself, see ``nonfinite`` in the state of a training
    )
