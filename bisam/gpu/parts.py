"""The parts of a step: the ascent loss, the climb and the way back, and how often the device is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

from ..gpu import published
from ..methods.table import RECIPES
from ..step.optimizer import SharpnessAware
from ..training import captured, models
from .lines import Stage
from .timing import BATCH, METHODS, endless, run_of, seconds_of, state_of


def ascent(stage: Stage, classes: int, compiled: bool = False) -> dict:
    """Forward and backward of a loss from logits that have a graph below them, in units of ``functional.cross_entropy``."""
    generator = torch.Generator().manual_seed(0)
    below = (2 * torch.randn(BATCH, classes, generator=generator)).to(stage.device).requires_grad_()
    targets = torch.randint(classes, (BATCH,), generator=generator).to(stage.device)
    logits = below.view_as(below)
    log, tanh = (RECIPES[name].ascent for name in METHODS[1:])
    through = {"cross-entropy": functional.cross_entropy, "plain -log": published.at_once}
    if not compiled:
        through["by rows -log"] = published.by_rows
    backend = "aot_eager" if stage.tiny else "inductor"  # the first needs no compiler of C++
    wrap = functools.partial(torch.compile, backend=backend) if compiled else lambda function: function
    if compiled:
        torch.compiler.reset()  # otherwise the second number of classes makes shapes that are compiled for any

    def of_value(loss: Callable) -> None:
        loss(logits, targets).backward()  # the graph below is one view, which can be gone through again and again

    def of_gradient(gradient: Callable) -> None:
        logits.backward(gradient(logits, targets))

    calls = {name: functools.partial(of_value, wrap(loss)) for name, loss in through.items()}
    calls |= {name: functools.partial(of_gradient, wrap(q.gradient)) for name, q in (("bisam -log", log), ("bisam tanh", tanh))}
    found = {name: seconds_of(call, stage, least=0.05) for name, call in calls.items()}
    unit = found.pop("cross-entropy")
    return {"seconds of cross-entropy": unit, **{name: seconds / unit for name, seconds in found.items()}}


def perturb(stage: Stage, model: str) -> dict:
    """The climb and the way back, in units of a step of fused SGD on the same weights."""
    net = models.build(model, (3, 32, 32), 10).to(stage.device)
    base, alone = (torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, fused=True if stage.is_cuda else None) for _ in range(2))
    opt = SharpnessAware(base, RECIPES["sam"], nonfinite="skip")
    gradients = [torch.ones_like(p) for p in net.parameters()]

    def backward() -> None:
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def there_and_back() -> None:
        backward()
        with opt.perturbed(net):
            pass

    def base_alone() -> None:
        backward()
        alone.step()

    climb, step = seconds_of(there_and_back, stage), seconds_of(base_alone, stage)
    return {"seconds": climb, "in steps of SGD": climb / step}


def launches(stage: Stage, model: str) -> dict:
    """What the processor hands to the device in a step: launches of kernels and graphs, and copies; on a CPU, operations of torch."""
    found = {}
    for name, mode in (("sgd", "no"), ("sam", "no"), ("bisam-log", "no"), ("bisam-log", "whole-step")):
        steps = endless(state_of(stage, run_of(stage, model, name, mode, "bfloat16")))
        for _ in range(captured.WARM_UP + 2):
            next(steps)
        found[f"{name} {mode}"] = _counted(steps, stage)
    return found


def _counted(steps: Iterator[None], stage: Stage) -> int:
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * stage.is_cuda
    stage.wait()
    with torch.profiler.profile(activities=kinds) as profile:
        next(steps)
        stage.wait()
    words = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync") if stage.is_cuda else ("aten::",)
    return sum(event.count for event in profile.key_averages() if event.key.startswith(words))
