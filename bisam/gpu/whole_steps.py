"""Whole steps: in every mode against their floor, in the published way, and of several trainings at a time."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json

import torch
from torch.nn import functional

from .. import captured, files
from ..train import PRECISIONS, Run
from . import published
from .lines import Stage
from .timing import BATCH, EPOCH, METHODS, endless, run_of, seconds_of, state_of

WIDTHS = (1, 2, 4, 8)
GAIN = 1.03  # a wider stage three must be that much quicker


def whole_steps(stage: Stage, model: str, mode: str, precision: str) -> dict:
    """Seconds of a step with everything that a training does around it, and of the floor; a training of 45,000 images in seconds an epoch."""
    found = {"floor": _floor(stage, model, mode, precision)}
    for name in ("sgd", *METHODS):
        found[name] = seconds_of(functools.partial(next, endless(state_of(stage, run_of(stage, model, name, mode, precision)))), stage)
    steps = EPOCH // BATCH
    if mode == "whole-step" and precision == "bfloat16":
        _tell(stage, {model: found["bisam-log"] / (32 if stage.tiny else BATCH) / 2})
    epochs = {f"epoch {name}": seconds * steps for name, seconds in found.items() if name != "floor"}
    return {**found, **{f"{name} in floors": found[name] / found["floor"] for name in METHODS}, **epochs}


def _floor(stage: Stage, model: str, mode: str, precision: str) -> float:
    """Two forward-backward passes with cross-entropy on a batch that lies there, and one step of SGD; in the same mode."""
    state = state_of(stage, run_of(stage, model, "sgd", "default" if mode == "default" else "no", precision))
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


def side_by_side(stage: Stage) -> dict:
    """Images a second, all trainings together; the best width is written down for stage three."""
    model = "airbench-narrow" if stage.tiny else "airbench"
    best, found = (1, 0.0), {}
    for width in WIDTHS[:2] if stage.tiny else WIDTHS:
        if stage.left < 0:
            break
        quick = _images_a_second(stage, width, run_of(stage, model, "bisam-log", "whole-step", "bfloat16", batch=500))
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
            lanes.append(endless(state_of(stage, run)))
    stage.wait()

    def all_once() -> None:
        for stream, lane in zip(streams, lanes, strict=True):
            with _on(stream):
                next(lane)

    return width * run.batch_size / seconds_of(all_once, stage, least=0.3)


def _on(stream) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def published_way(stage: Stage, model: str) -> dict:
    """SAM and BiSAM (-log) in loops like those of the public code, and their ratio, which the published table of times has too."""
    found = {}
    for name in ("sam", "bisam"):
        state = state_of(stage, run_of(stage, model, "sgd", "no", "float32").replace(channels_last=False))
        step = published.Step(state.model.train(), state.optimizer.base, published.LOSSES[name])
        batches = itertools.cycle([state._batch(state.train, index, state.augment) for index in itertools.islice(state._batches(), 2)])
        found[name] = seconds_of(lambda step=step, batches=batches: step(next(batches)), stage)
    epochs = {f"epoch {name}": seconds * (EPOCH // BATCH) for name, seconds in found.items()}
    return {**found, "ratio": found["bisam"] / found["sam"], **epochs}
