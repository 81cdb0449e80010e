r"""The optimisers that move the weights: SGD with momentum, AdamW, and Muon for the matrices with AdamW for the rest.

.. math:: \text{Muon:}\quad M_t = \beta M_{t-1} + G_t, \qquad W_t = (1 - \eta\lambda)\,W_{t-1}
    - 0.2\,\eta \sqrt{\max(m, n)}\;\mathrm{NS}(G_t + \beta M_t)

with NS the Newton-Schulz iteration, which brings the singular values of a matrix near to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..methods.variational import Variational
from .run import Run

__all__ = ["base_optimizer", "matrices"]


def base_optimizer(run: Run, model: nn.Module, samples: int) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
    """The base of a run; the one that bSAM brings with it, if the recipe is of that kind.

    Args:
        run: its ``base``, ``lr``, ``momentum``, ``beta2`` and ``weight_decay``.
        model: whose parameters it moves.
        samples: of the training split, for bSAM.

    Raises:
        ValueError: Muon for a network without a matrix that it could move, or a torch that has no Muon.

    Source:
        Loshchilov and Hutter (2019) for AdamW; Jordan (2024) for Muon, with the scale of Liu et al. (2025), equation (4), by which it takes the
        learning rate and the weight decay of AdamW.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [type(one).__name__ for one in base_optimizer(Run(base="muon"), net, 100)]
        ['Muon', 'AdamW']
    """
    if run.own_base:
        return Variational(model.parameters(), run.lr, (run.momentum, 0.999), samples=samples, prior=run.weight_decay)
    fused = True if run.device.startswith("cuda") else None  # skips a step by itself that is not finite
    if run.base == "sgd":
        return torch.optim.SGD(model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=fused)
    if run.base == "adamw":
        return torch.optim.AdamW(model.parameters(), run.lr, (run.momentum, run.beta2), weight_decay=run.weight_decay, fused=fused)
    return _muon(run, model)


def _muon(run: Run, model: nn.Module) -> list[torch.optim.Optimizer]:
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f'base must be "sgd" or "adamw" with torch {torch.__version__}, which has no Muon; torch 2.9 has it; got "muon"')
    moved = matrices(model)
    if not moved:
        raise ValueError(
            f'base must be "sgd" or "adamw" for model {run.model!r}: Muon moves the matrices between the first and the last layer, and it has none; '
            'got "muon"'
        )
    names = {id(p) for p in moved}
    rest = [p for p in model.parameters() if id(p) not in names]
    muon = torch.optim.Muon(moved, run.lr, run.weight_decay, run.momentum, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, run.lr, (0.9, run.beta2), weight_decay=run.weight_decay)]


def matrices(model: nn.Module) -> list[Tensor]:
    """The parameters that Muon moves: matrices, but for tables of embeddings and the last matrix, which in most networks gives the logits.

    Kernels of convolutions have four axes and stay with AdamW.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [tuple(p.shape) for p in matrices(net)]
        [(8, 4)]
    """
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters(recurse=False)}
    found = [p for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in tables and "embed" not in name and p.requires_grad]
    return found[:-1]
