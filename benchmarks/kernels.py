"""How many operations a step gives to the device: what a small network on a fast device waits for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import methods
import models
import torch
from harness import WARM_UP, Candidate, Case, Settings
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from bisam import _look
from bisam.step import perturbation

RECIPES = ("sam", "bisam-log", "bisam-tanh")

# Views, allocations and questions: they reach no kernel.
IDLE = frozenset((
    "alias", "as_strided", "as_strided_", "can_cast", "chunk", "conj", "contiguous", "detach", "detach_",
    "diagonal", "empty", "empty_like", "empty_strided", "expand", "expand_as", "flatten", "is_nonzero",
    "is_same_size", "lift_fresh", "movedim", "narrow", "new_empty", "new_empty_strided", "permute",
    "promote_types", "requires_grad_", "reshape", "resize_", "resize_as_", "resolve_conj", "resolve_neg",
    "result_type", "select", "set_", "slice", "split", "split_with_sizes", "squeeze", "squeeze_", "t", "t_",
    "to", "transpose", "transpose_", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "unsqueeze_",
    "view", "view_as", "_local_scalar_dense", "_reshape_alias", "_unsafe_view",
))


def cases(settings: Settings, nets: dict[str, models.Net] | None = None) -> Iterator[Case]:
    """One case for each network, at a small batch: the number does not depend on it."""
    for net in models.many_and_large(nets or models.nets(settings.device)):
        yield _case(settings, replace(net, batch=min(8, net.batch)))


def _case(settings: Settings, net: models.Net) -> Case:
    others, absent = methods.peers()
    every = {"floor": methods.two_passes, **methods.recipes(RECIPES), **others}
    found = [Candidate(name, _count(settings, net, method)) for name, method in every.items()]
    unit = f"{'operations on the device' if settings.device == 'cuda' else 'operations as a GPU would be given them'} in one step"
    return Case("kernels", net.name, unit, found, absent, models.size(net.build()), counts=True)


def _count(settings: Settings, net: models.Net, method: methods.Method) -> Callable[[], int]:
    def run() -> int:
        step = method(*net.on(settings.device, settings.seed))
        for _ in range(WARM_UP):
            step()
        return operations(step, settings.device)

    return run


def operations(step: Callable[[], object], device: str) -> int:
    """Kernels, copies and fills on a CUDA device; on the CPU the operations that torch would give to one.

    An operation on many tensors counts as one, as on a GPU, although a CPU goes through the tensors one by one. What is done on a
    CPU alone, looks at numbers and short cuts that need one, is switched off.
    """
    if device != "cuda":
        with as_on_a_gpu(), Dispatched() as seen:
            step()
        return seen.count
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    return sum(_on_device(event) for event in profiled.events())


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Inside, no number is read, and no parameter looks at other memory for a while."""
    free, enough = _look.is_free, perturbation.WORTH_A_LOOK
    _look.is_free, perturbation.WORTH_A_LOOK = lambda tensor: False, math.inf
    try:
        yield
    finally:
        _look.is_free, perturbation.WORTH_A_LOOK = free, enough


class Dispatched(TorchDispatchMode):
    """Counts what torch dispatches."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        library, _, name = function.name().partition("::")
        self.count += library == "aten" and name.partition(".")[0] not in IDLE
        return function(*arguments, **(options or {}))


def _on_device(event) -> bool:
    # Named ranges of the host are drawn on the device's track too, and launch nothing.
    return event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
