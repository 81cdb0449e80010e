"""Holding a model still while something is measured: its modes, its buffers, and weights that come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .. import _checks
from ..step.buffers import held_buffers
from ..step.perturbation import Displacement

BATCH_NORM = ("running", "batch")
OLD_WORDS = {"kept": "running", "estimated": "batch"}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that require a gradient, by name; tied ones once. There has to be one."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise ValueError("the model must have a parameter that requires a gradient, it has none")
    return weights


@contextmanager
def held(model: nn.Module, batch_norm: str) -> Iterator[None]:
    """All modules in the mode that is measured in; modes and buffers are as before afterwards.

    >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    >>> with held(net, "batch"):  # batch norm uses the statistics of the samples that go through together
    ...     print(net[0].training, net[1].training)
    True False
    >>> net.training, net[0].running_mean
    (True, tensor([0., 0.]))
    """
    check_batch_norm(batch_norm)
    before = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    if batch_norm == "running" and any(norm.running_mean is None for norm in norms):
        raise ValueError('batch_norm must be "batch" for a model with a batch norm that keeps no running statistics')
    with held_buffers(model):
        try:
            for module, _ in before:
                module.training = False
            if batch_norm == "batch":
                for norm in norms:  # not tracking: a function without side effects, which the Hessian needs
                    norm.training, norm.track_running_stats = True, False
            yield
        finally:
            for module, was_training in before:
                module.training = was_training
            for norm, was_tracked in zip(norms, tracked, strict=True):
                norm.track_running_stats = was_tracked


def check_batch_norm(word: object) -> None:
    if isinstance(word, str) and word in OLD_WORDS:
        raise ValueError(f'batch_norm="{word}" is now called batch_norm="{OLD_WORDS[word]}"')
    _checks.choice("batch_norm", word, BATCH_NORM)


@contextmanager
def moved(weights: dict[str, Tensor], perturbation: dict[str, Tensor]) -> Iterator[None]:
    """The weights moved by a perturbation inside, and back to the bit."""
    parameters, away = list(weights.values()), Displacement()
    moves = [perturbation[name].detach().to(weight, copy=True) for name, weight in weights.items()]
    away.leave(parameters)
    try:
        if parameters:
            away.add(parameters, moves)
        yield
    finally:
        away.back()
