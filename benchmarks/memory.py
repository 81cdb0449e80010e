"""The most memory that training takes beyond the weights, in copies of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import methods
import models
import torch
from harness import Candidate, Case, Settings
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

RECIPES = ("sam", "bisam-log", "asam")
STEPS = 3  # so that what a method keeps from step to step is there


def cases(settings: Settings, nets: dict[str, models.Net] | None = None) -> Iterator[Case]:
    """The network with the most parameters, on two samples: its activations then weigh nothing."""
    every = nets or {"mlp": models.nets(settings.device)["mlp"]}
    for net in every.values():
        yield _case(settings, replace(net, batch=2))


def _case(settings: Settings, net: models.Net) -> Case:
    others, absent = methods.peers()
    every = {"sgd": methods.one_pass, **methods.recipes(RECIPES), **others}
    found = [Candidate(name, _copies(settings, net, method)) for name, method in every.items()]
    unit = "copies of the parameters beyond the weights"
    return Case("memory", net.name, unit, found, absent, models.size(net.build()), counts=True)


def _copies(settings: Settings, net: models.Net, method: methods.Method) -> Callable[[], float]:
    def run() -> float:
        model, x, y = net.on(settings.device, settings.seed)
        functional.cross_entropy(model(x), y).backward()  # the workspaces of the libraries are made now
        model.zero_grad()

        def train() -> None:
            step = method(model, x, y)
            for _ in range(STEPS):
                step()

        whole = sum(parameter.nbytes for parameter in model.parameters())
        return peak(train, settings.device) / whole

    return run


def peak(work: Callable[[], object], device: str) -> int:
    """The most bytes that were allocated at once while the work was done, beyond those before it."""
    return _peak_on_cuda(work) if device == "cuda" else _peak_on_cpu(work)


def _peak_on_cuda(work: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_on_cpu(work: Callable[[], object]) -> int:
    """The running sum of all that torch's allocator gave and took back, as the profiler has noted it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    notes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for note in sorted(notes, key=lambda note: note.start_ns()):
        held += note.nbytes()
        most = max(most, held)
    return most
