"""Gradients by name: taken out of the parameters, put into them, scaled, and averaged over workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..axes.shards import are_workers, locals_of, spread_as
from ..axes.tensors import Tensors


def named_parameters(groups: list[dict], names: dict[Tensor, str]) -> Iterator[tuple[str, Tensor]]:
    """The parameters of an optimiser by the names that the model gives them; by place for those that it does not hold."""
    for g, group in enumerate(groups):
        for k, parameter in enumerate(group["params"]):
            yield names.get(parameter, f"parameter {k} of group {g}"), parameter


def is_foreign(name: str) -> bool:
    """Whether a parameter of the base is not among the model's."""
    return name.startswith("parameter ")


def check_known(gradient: Tensors) -> None:
    """An error if a parameter that is not the model's has a gradient: its module may hold state, and its name decides what it is."""
    for name in gradient:
        if is_foreign(name):
            raise ValueError(
                f"model must hold all parameters of the base that lead to the loss, and {name} is not among its own: hand over one module "
                "that holds all, such as torch.nn.ModuleList([encoder, decoder]), with bare parameters in a torch.nn.ParameterList in it"
            )


def gradients(parameters: Tensors) -> Tensors:
    """The gradients that parameters hold, by name.

    Raises:
        TypeError: a gradient is sparse or complex.
    """
    found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if are_workers():
        found = {name: spread_as(gradient, parameters[name]) for name, gradient in found.items()}
    for name, gradient in found.items():
        if gradient.is_sparse:
            raise TypeError(f"parameter {name} has a sparse gradient; use sparse=False in its embedding")
        if gradient.is_complex():
            raise TypeError(f"parameter {name} is complex ({gradient.dtype}); the climb is defined for real parameters")
    return found


def python_functions(*outputs: Tensor | None) -> set[str]:
    """The functions written in Python that lead to some tensors.

    Each may run a backward pass of its own, as a re-entrant checkpoint does, for parameters that are not seen in the graph: these get a
    gradient from ``backward()``, and none from ``backward(inputs=...)`` or ``torch.autograd.grad``.
    """
    ahead = [output.grad_fn for output in outputs if output is not None and output.grad_fn is not None]
    seen = set(ahead)
    while ahead:
        following = {node for node, _ in ahead.pop().next_functions if node is not None} - seen
        seen |= following
        ahead += following
    return {type(node).__name__ for node in seen if isinstance(node, torch.autograd.function.BackwardCFunction)}


def take(parameters: Tensors) -> Tensors:
    """The gradients by name; the parameters have none afterwards."""
    # A view is one of a buffer that several workers share, and that the next backward pass writes to.
    found = {name: g.clone() if g._is_view() else g for name, g in gradients(parameters).items()}
    for parameter in parameters.values():
        parameter.grad = None
    return found


def own_and_others(groups: list[dict], names: dict[Tensor, str]) -> tuple[Tensors, list[Tensor]]:
    """The parameters of an optimiser by name, and those of the model that are not among them and require a gradient."""
    own = dict(named_parameters(groups, names))
    if len(names) <= len(own):
        return own, []
    known = {id(parameter) for parameter in own.values()}
    return own, [parameter for parameter in names if parameter.requires_grad and id(parameter) not in known]


@contextmanager
def left_alone(others: list[Tensor]) -> Iterator[None]:
    """Around a first pass: parameters that the base does not hold keep the gradients that they have, and get none of this pass."""
    before = [parameter.grad for parameter in others]
    for parameter in others:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(others, before, strict=True):
            parameter.grad = gradient


def put(parameters: Tensors, gradient: Tensors) -> None:
    """Gives the parameters these gradients, and the others none."""
    for name, parameter in parameters.items():
        parameter.grad = gradient.get(name)


def add(parameters: Tensors, earlier: Tensors, weight: float) -> None:
    """Puts gradients from before back, and adds what is new."""
    if not earlier and weight == 1:
        return
    for name, parameter in parameters.items():
        if parameter.grad is not None and weight != 1:
            parameter.grad.mul_(weight)
        if name in earlier:
            parameter.grad = earlier[name] if parameter.grad is None else earlier[name].add_(parameter.grad)


def copied(parameters: Tensors) -> None:
    """Takes the gradients out of the memory of a CUDA graph, before its next replay writes over them."""
    for parameter in parameters.values():
        parameter.grad = None if parameter.grad is None else parameter.grad.clone()


def scaled(loss: Tensor, scaler) -> Tensor:
    """The loss times the factor of a ``GradScaler``, if there is one."""
    return loss if scaler is None else scaler.scale(loss)


def unscaled_(gradient: Tensors, scaler) -> Tensors:
    """Without the factor of the scaler, in place."""
    if scaler is not None and gradient:
        torch._foreach_mul_(locals_of(list(gradient.values())), 1 / _factor(gradient, scaler))
    return gradient


def rescaled(gradient: Tensors, scaler) -> Tensors:
    """With the factor of the scaler."""
    if scaler is not None and gradient:
        return {name: g * _factor(gradient, scaler) for name, g in gradient.items()}
    return gradient


def _factor(gradient: Tensors, scaler) -> Tensor:
    return scaler.scale(torch.ones((), device=next(iter(gradient.values())).device))


def mean_over_workers(gradient: Tensors, model: nn.Module) -> Tensors:
    """The mean over the workers of a ``DistributedDataParallel``; outside ``no_sync`` it takes that of ``backward()`` itself."""
    for g in gradient.values():
        torch.distributed.all_reduce(g, group=model.process_group)
        g.div_(torch.distributed.get_world_size(model.process_group))
    return gradient


def seen_by_all(size: Tensor, device: torch.device, model: nn.Module) -> Tensor:
    """A norm on this worker, or NaN if that of any worker is not finite: all must skip the same steps."""
    accidents = (~torch.isfinite(size)).to(device, torch.float32)  # the norm of no tensors is on the CPU, where nccl cannot reach it
    torch.distributed.all_reduce(accidents, group=model.process_group)
    return torch.where(accidents > 0, torch.nan, size.to(device))
