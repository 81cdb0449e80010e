"""Models on several workers: those of ``fully_shard``, whose weights are spread, ``no_sync``, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

from ..axes.recipe import Recipe
from ..axes.shards import are_workers, is_sharded


def weights_have_moved(model: nn.Module) -> None:
    """Forgets what is kept of the weights as they were, and would switch the method off without a word."""
    drop_copies()
    reshard(model)


def drop_copies() -> None:
    """Forgets the casts of autocast, and what :func:`torch.nn.utils.parametrize.cached` keeps; also those that a pass without a graph has made."""
    torch.clear_autocast_cache()
    nn.utils.parametrize._cache.clear()


def reshard(model: nn.Module) -> None:
    """The model holds its shards afterwards, also where a pass without a backward pass has left it whole."""
    fsdp = _fsdp()
    for module in () if fsdp is None else model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()


def any_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether some of the parameters are spread over workers."""
    return _fsdp() is not None and any(is_sharded(parameter) for parameter in parameters)


def _fsdp() -> ModuleType | None:
    """The module of torch that shards, where it is in use: a look at every module of a model takes time."""
    return sys.modules.get("torch.distributed.fsdp") if are_workers() else None


@contextmanager
def synchronised(shared: nn.Module | None) -> Iterator[None]:
    """All workers have the same gradients after a pass inside, as they must to climb to one place, also in a ``no_sync`` of the caller.

    Args:
        shared: the ``DistributedDataParallel``, if there is one.
    """
    if shared is None:
        yield
        return
    before, shared.require_backward_grad_sync = shared.require_backward_grad_sync, True
    try:
        yield
    finally:
        shared.require_backward_grad_sync = before


def check_model(model: nn.Module) -> None:
    """An error for a model of which a worker sees a part of the weights alone, without being told."""
    if not are_workers():
        return
    fsdp = _fsdp()
    if fsdp is not None and any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        raise TypeError(
            "model must not be a FullyShardedDataParallel, where each worker would climb by the norm of its own part; "
            "shard it with torch.distributed.fsdp.fully_shard"
        )
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise TypeError(
            "model must not be partitioned by DeepSpeed (ZeRO stage 3), whose weights cannot be moved from outside; "
            "shard it with torch.distributed.fsdp.fully_shard"
        )


def check_recipe(recipe: Recipe, per_worker: bool, model: nn.Module | None) -> None:
    """An error for what cannot be done where the weights are spread over workers."""
    if recipe.radius.learns:
        raise ValueError(
            f"radius must not be {type(recipe.radius).__name__}, as in recipe {recipe.name!r}, for a model of fully_shard: it learns by "
            "derivatives that autograd does not give for shards; use DistributedDataParallel"
        )
    if per_worker:
        raise ValueError("per_worker must be False for a model of fully_shard, whose backward pass averages over all workers")
    if model is None:
        raise ValueError("model must be given for one of fully_shard, step(closure, model=model): it is told that its weights have moved")
