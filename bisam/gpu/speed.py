"""Stage two: what a step costs on this device, in seconds and in units of what no two-pass method can avoid."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .. import captured, data, files, models, train
from ..optimizer import SharpnessAware
from ..recipe import RECIPES
from ..train import PRECISIONS, Run
from ..workers import Workers
from . import published
from .correctness import task
from .lines import Stage

__all__ = ["Item", "items", "main", "seconds_of"]

EPOCH = 45_000  # images, as in the published table of training times
BATCH = 128
WIDTHS = (1, 2, 4, 8)
GAIN = 1.03  # a wider stage three must be that much quicker
METHODS = ("sam", "bisam-log", "bisam-tanh")


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    Args:
        name: in the file.
        run: returns what was measured, by name.

    Source:
        Ours.

    Example:
        >>> Item("nothing", dict).run()
        {}
    """

    name: str
    run: Callable[[], dict]


def main(stage: Stage) -> None:
    """All items in the order of what stage three and the reader need most, until the time is over.

    Args:
        stage: where to write and until when.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     main(Stage("speed", Path(folder), end=time.monotonic(), quiet=True))
        ...     "cut" in (Path(folder) / "speed.jsonl").read_text()
        True
    """
    with train.exact_kernels(stage.device):
        for item in stage.in_time(items(stage)):
            started = time.monotonic()
            try:
                found = item.run()
            except Exception as error:
                if isinstance(error, getattr(torch, "AcceleratorError", ())):
                    raise  # the device is lost to this process
                found = {"error": f"{type(error).__name__}: {error}"[:500]}
            stage.note(item.name, **found, took=time.monotonic() - started)
            if stage.is_cuda:
                torch.cuda.empty_cache()


def items(stage: Stage) -> list[Item]:
    """What is measured: how many trainings go side by side, whole steps in every mode, the published way, and the parts of a step.

    Args:
        stage: the device, and whether sizes are tiny.

    Source:
        Ours.

    Example:
        >>> items(Stage("speed", "."))[0].name
        'side by side'
    """
    nets = ("resnet8", "mlp") if stage.tiny else ("resnet56", "vgg19-bn", "mlp")
    modes = ("whole-step", "no")
    compiled = [] if stage.tiny else [  # which takes the compiler a minute
        *(Item(f"ascent K={k} compiled", functools.partial(_ascent, stage, k, compiled=True)) for k in (10, 100, 1000)),
        *(Item(f"step {net} bfloat16 compiled", functools.partial(_whole_steps, stage, net, "default", "bfloat16")) for net in reversed(nets)),
    ]
    return [
        Item("side by side", lambda: _side_by_side(stage)),
        *(Item(f"step {net} bfloat16 {mode}", functools.partial(_whole_steps, stage, net, mode, "bfloat16")) for net in nets for mode in modes),
        *(Item(f"published way {net}", functools.partial(_published_way, stage, net)) for net in nets[:2]),
        *(Item(f"step {nets[0]} float32 {mode}", functools.partial(_whole_steps, stage, nets[0], mode, "float32")) for mode in modes),
        Item("launches", lambda: _launches(stage, nets[0])),
        *(Item(f"ascent K={k}", functools.partial(_ascent, stage, k)) for k in (10, 100, 1000)),
        Item("perturb and restore", lambda: _perturb(stage, nets[0])),
        *compiled,
    ]


def seconds_of(run: Callable[[], object], stage: Stage, least: float = 0.1) -> float:
    """Seconds of one call: the median of five samples, each of as many calls as take ``least`` seconds, and a wait for the device.

    Args:
        run: what is timed.
        stage: with the device.
        least: seconds of a sample.

    Source:
        Ours.

    Example:
        >>> seconds_of(lambda: None, Stage("speed", ".", tiny=True)) >= 0
        True
    """
    for _ in range(2 if stage.tiny else captured.WARM_UP + 3):
        run()
    count, found = 1, []
    while not stage.tiny and (took := _sample(run, count, stage)) * count < least:
        count = max(2 * count, math.ceil(count * least / max(took * count, 1e-6) / 2))
    for _ in range(1 if stage.tiny else 5):
        found.append(_sample(run, count, stage))
    return statistics.median(found)


def _sample(run: Callable[[], object], count: int, stage: Stage) -> float:
    stage.wait()
    started = time.perf_counter()
    for _ in range(count):
        run()
    stage.wait()
    return (time.perf_counter() - started) / count


# -- whole steps -------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _images(tiny: bool) -> data.Data:
    return task(32, 256 if tiny else EPOCH, others=50)


def _state(stage: Stage, run: Run) -> train._State:
    torch.manual_seed(0)
    return train._State(run, _images(stage.tiny), Workers(0, 1))


def _endless(state: train._State) -> Iterator[None]:
    """The steps of one epoch after the other; the few images of the other splits are looked at between them."""
    while True:
        yield from state.steps()


def _run(stage: Stage, model: str, name: str, compile: str, precision: str, batch: int = BATCH) -> Run:
    method = RECIPES[name]
    return Run(
        recipe=method, model=model, epochs=10_000, batch_size=32 if stage.tiny else batch, lr=1e-3, device=stage.device, augment="crop-flip",
        precision=precision, compile=compile, channels_last=precision == "bfloat16",
    )  # fmt: skip


def _whole_steps(stage: Stage, model: str, mode: str, precision: str) -> dict:
    """Seconds of a step with everything that a training does around it, and of the floor; a training of 45,000 images in seconds an epoch."""
    found = {"floor": _floor(stage, model, mode, precision)}
    for name in ("sgd", *METHODS):
        found[name] = seconds_of(functools.partial(next, _endless(_state(stage, _run(stage, model, name, mode, precision)))), stage)
    steps = EPOCH // BATCH
    if mode == "whole-step" and precision == "bfloat16":
        _tell(stage, {model: found["bisam-log"] / (32 if stage.tiny else BATCH) / 2})
    epochs = {f"epoch {name}": seconds * steps for name, seconds in found.items() if name != "floor"}
    return {**found, **{f"{name} in floors": found[name] / found["floor"] for name in METHODS}, **epochs}


def _floor(stage: Stage, model: str, mode: str, precision: str) -> float:
    """Two forward-backward passes with cross-entropy on a batch that lies there, and one step of SGD; in the same mode."""
    state = _state(stage, _run(stage, model, "sgd", "default" if mode == "default" else "no", precision))
    network, base = state.network.train(), state.optimizer.base
    inputs = state._laid_out(state.task.prepared(state.train.inputs[: state.run.batch_size]))
    targets = state.train.targets[: state.run.batch_size]

    def passes() -> None:
        for _ in range(2):
            base.zero_grad()
            with torch.autocast(stage.device.partition(":")[0], PRECISIONS[precision], enabled=precision != "float32"):
                logits = network(inputs)
            functional.cross_entropy(logits.float(), targets).backward()
        base.step()

    graph = captured.graph_of(torch.device(stage.device)) if mode == "whole-step" else None
    if graph is None:
        return seconds_of(passes, stage)
    side = captured.side_stream(torch.device(stage.device))
    with captured.aside(side):
        for _ in range(captured.WARM_UP):
            passes()
    base.zero_grad()
    return seconds_of(graph(passes, side).replay, stage)


def _side_by_side(stage: Stage) -> dict:
    """Images a second, all trainings together; the best width is written down for stage three."""
    model = "airbench-narrow" if stage.tiny else "airbench"
    best, found = (1, 0.0), {}
    for width in WIDTHS[:2] if stage.tiny else WIDTHS:
        if stage.left < 0:
            break
        quick = _images_a_second(stage, width, _run(stage, model, "bisam-log", "whole-step", "bfloat16", batch=500))
        found[f"images a second, {width}"] = quick
        best = (width, quick) if quick > GAIN * best[1] else best
        _tell(stage, width=best[0], prices={model: best[0] / best[1] / 2})
    return {**found, "width": best[0]}


def _tell(stage: Stage, prices: dict[str, float], **more) -> None:
    """Leaves for stage three how many trainings go side by side, and seconds of a pass over an image by network."""
    path = stage.out / "found.json"
    there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"prices": {}}
    files.write_whole(path, json.dumps({**there, **more, "prices": {**there["prices"], **prices}}))


def _images_a_second(stage: Stage, width: int, run: Run) -> float:
    streams = [torch.cuda.Stream(stage.device) if stage.is_cuda else None for _ in range(width)]
    lanes = []
    for stream in streams:
        with _on(stream):
            lanes.append(_endless(_state(stage, run)))
    stage.wait()

    def all_once() -> None:
        for stream, lane in zip(streams, lanes, strict=True):
            with _on(stream):
                next(lane)

    return width * run.batch_size / seconds_of(all_once, stage, least=0.3)


def _on(stream) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


# -- as the published runs did it --------------------------------------------------------------------------------------------


def _published_way(stage: Stage, model: str) -> dict:
    """SAM and BiSAM (-log) in loops like those of the public code, and their ratio, which the published table of times has too."""
    found = {}
    for name in ("sam", "bisam"):
        state = _state(stage, _run(stage, model, "sgd", "no", "float32").replace(channels_last=False))
        step = published.Step(state.model.train(), state.optimizer.base, published.LOSSES[name])
        batches = itertools.cycle([state._batch(state.train, index, state.augment) for index in itertools.islice(state._batches(), 2)])
        found[name] = seconds_of(lambda step=step, batches=batches: step(next(batches)), stage)
    epochs = {f"epoch {name}": seconds * (EPOCH // BATCH) for name, seconds in found.items()}
    return {**found, "ratio": found["bisam"] / found["sam"], **epochs}


# -- parts of a step ---------------------------------------------------------------------------------------------------------


def _ascent(stage: Stage, classes: int, compiled: bool = False) -> dict:
    """Forward and backward of a loss from logits that have a graph below them, in units of ``functional.cross_entropy``."""
    generator = torch.Generator().manual_seed(0)
    below = (2 * torch.randn(BATCH, classes, generator=generator)).to(stage.device).requires_grad_()
    targets = torch.randint(classes, (BATCH,), generator=generator).to(stage.device)
    logits = below.view_as(below)
    log, tanh = (RECIPES[name].ascent for name in METHODS[1:])
    through = {"cross-entropy": functional.cross_entropy, "plain -log": published.at_once}
    if not compiled:
        through["by rows -log"] = published.by_rows
    wrap = torch.compile if compiled else lambda function: function
    if compiled:
        torch.compiler.reset()  # otherwise the second number of classes makes shapes that are compiled for any
    found = {name: _time(stage, logits, targets, wrap(loss), of_value=True) for name, loss in through.items()}
    found |= {name: _time(stage, logits, targets, wrap(q.gradient), of_value=False) for name, q in (("bisam -log", log), ("bisam tanh", tanh))}
    unit = found["cross-entropy"]
    return {"seconds of cross-entropy": unit, **{name: seconds / unit for name, seconds in found.items() if name != "cross-entropy"}}


def _time(stage: Stage, logits: Tensor, targets: Tensor, loss: Callable, of_value: bool) -> float:
    def run() -> None:
        if of_value:
            loss(logits, targets).backward()  # the graph below is one view, which can be gone through again and again
        else:
            logits.backward(loss(logits, targets))

    return seconds_of(run, stage, least=0.05)


def _perturb(stage: Stage, model: str) -> dict:
    """The climb and the way back, in units of a step of fused SGD on the same weights."""
    net = models.build(model, (3, 32, 32), 10).to(stage.device)
    base = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, fused=True if stage.is_cuda else None)
    opt = SharpnessAware(base, RECIPES["sam"], nonfinite="skip")
    gradients = [torch.ones_like(p) for p in net.parameters()]

    def there_and_back() -> None:
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient
        with opt.perturbed(net):
            pass

    def base_alone() -> None:
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient
        base.step()

    climb = seconds_of(there_and_back, stage)
    opt._licensed = False
    step = seconds_of(base_alone, stage)
    return {"seconds": climb, "in steps of SGD": climb / step}


def _launches(stage: Stage, model: str) -> dict:
    """What the processor hands to the device in a step: launches of kernels and graphs, and copies; on a CPU, operations of torch."""
    found = {}
    for name, mode in (("sgd", "no"), ("sam", "no"), ("bisam-log", "no"), ("bisam-log", "whole-step")):
        steps = _endless(_state(stage, _run(stage, model, name, mode, "bfloat16")))
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
