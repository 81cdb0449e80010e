"""What has to be known of a model: the names of its parameters, what wraps it, and whether its passes are random."""

from __future__ import annotations

from torch import Tensor, nn

from .sharded import reshard


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a ``DistributedDataParallel``, ``DataParallel`` or compiled one."""
    while True:
        inside = getattr(model, "_orig_mod", None)
        if inside is None and isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inside = model.module
        if inside is None:
            return model
        model = inside


def distributed(model: nn.Module) -> nn.Module | None:
    """The ``DistributedDataParallel`` that a model is, or that was compiled; ``None`` without one."""
    while getattr(model, "_orig_mod", None) is not None:
        model = model._orig_mod
    return model if isinstance(model, nn.parallel.DistributedDataParallel) else None


def is_graphed(model: nn.Module) -> bool:
    """Whether what a pass returns may live in the memory of a CUDA graph, which the next pass writes over."""
    first = next(model.parameters(), None)
    if first is None or not first.is_cuda:
        return False
    return is_compiled(model)


def is_compiled(model: nn.Module) -> bool:
    """Whether a module, or one inside it, is compiled."""
    return any("_orig_mod" in module._modules or module._compiled_call_impl is not None for module in model.modules())


def names_of(model: nn.Module) -> dict[Tensor, str]:
    """The parameters of a model by name, the same whether it is wrapped for several workers, compiled or bare."""
    reshard(model)  # the parameters of the base are the shards
    return {parameter: name for name, parameter in unwrapped(model).named_parameters()}


def draws_noise(model: nn.Module) -> bool:
    """Whether a pass through the model draws random numbers, as far as its modules show."""
    return any(module.training and _noise_of(module) > 0 for module in model.modules())


def _noise_of(module: nn.Module) -> float:
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    return float(isinstance(module, nn.RReLU))
