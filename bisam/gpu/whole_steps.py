"""Whole steps: in every mode against their floor, in the published way, and of several trainings at a time."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json

import torch
from torch.nn import functional

from .. import _files as files
from ..gpu import published
from ..training import Run, captured, graphs
from ..training.run import PRECISIONS
from .lines import Stage
from .timing import BATCH, EPOCH, METHODS, endless, run_of, seconds_of, state_of

WIDTHS = (1, 2, 4, 8)
GAIN = 1.03  # a wider stage three must be that much quicker


def whole_steps(stage: Stage, model: str, mode: str, precision: str) -> dict:
    """Seconds of a step with everything that a training does around it, and of the floor; a training of 45,000 images in seconds an epoch."""
    floor, found = _floor(stage, model, mode, precision), {}
    for name in ("sgd", *METHODS):
        found[name] = seconds_of(functools.partial(next, endless(state_of(stage, run_of(stage, model, name, mode, precision)))), stage)
    return {"floor": floor, **found, **{f"{name} in floors": found[name] / floor for name in METHODS}, **_epochs(found)}


def _epochs(found: dict[str, float]) -> dict[str, float]:
    return {f"epoch {name}": seconds * (EPOCH // BATCH) for name, seconds in found.items()}


def _floor(stage: Stage, model: str, mode: str, precision: str) -> float:
    """Two forward-backward passes with cross-entropy on a batch that lies there, and one step of SGD; in the same mode."""
    state = state_of(stage, run_of(stage, model, "sgd", "default" if mode == "default" else "no", precision))
    network, base = state.network.train(), state.optimizer.base
    inputs = state.laid_out(state.task.prepared(state.train.inputs[: state.run.batch_size]))
    targets = state.train.targets[: state.run.batch_size]

    def passes() -> None:
        for _ in range(2):
            base.zero_grad()
            with torch.autocast(stage.device.partition(":")[0], PRECISIONS[precision], enabled=precision != "float32"):
                logits = network(inputs)
            functional.cross_entropy(logits.float(), targets).backward()
        base.step()

    graph = graphs.graph_of(torch.device(stage.device)) if mode == "whole-step" else None
    if graph is None:
        return seconds_of(passes, stage)
    side = graphs.side_stream(torch.device(stage.device))
    with graphs.aside(side):
        for _ in range(captured.WARM_UP):
            passes()
    base.zero_grad()
    return seconds_of(graph(passes, side).replay, stage)


def side_by_side(stage: Stage, kind: str, run: Run) -> dict:
    """Images a second of one training without graphs, and of several with, all together; what is best is written down for stage three."""
    eager = _priced(stage, kind, run)
    best, found = (1, 0.0), {"images a second, eager": eager}
    for width in WIDTHS[:2] if stage.tiny else WIDTHS:
        if stage.left < 0:
            break
        quick = _priced(stage, kind, run, width)
        found[f"images a second, {width}"] = quick
        best = (width, quick) if quick > GAIN * best[1] else best
        _tell(stage, width=best[0], graphs=best[1] > eager, prices={kind: _price(run, *best)})
    return {**found, "width": best[0], "graphs": best[1] > eager}


def price(stage: Stage, kind: str, run: Run) -> dict:
    """The same of another kind of run, at the width that was best."""
    width = _written(stage).get("width", 1)
    return {"images a second, eager": _priced(stage, kind, run), f"images a second, {width}": _priced(stage, kind, run, width)}


def _priced(stage: Stage, kind: str, run: Run, width: int = 0) -> float:
    """Images a second at a width, at 0 of one training without graphs; its price is written down."""
    quick = _images_a_second(stage, max(width, 1), run, graphs=width > 0)
    _tell(stage, **{"prices" if width else "eager": {kind: _price(run, max(width, 1), quick)}})
    return quick


def _price(run: Run, width: int, quick: float) -> float:
    """Seconds that a pass over an image takes one of so many trainings."""
    return width / quick / run.recipe.passes


def _tell(stage: Stage, **found) -> None:
    """Leaves for stage three how many trainings go side by side, and seconds of a pass over an image by kind of run, with graphs and eager."""
    there = _written(stage)
    for name, value in found.items():
        there[name] = {**there[name], **value} if isinstance(value, dict) else value
    files.write_whole(stage.out / "found.json", json.dumps(there))


def _written(stage: Stage) -> dict:
    path = stage.out / "found.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"prices": {}, "eager": {}}


def _images_a_second(stage: Stage, width: int, run: Run, graphs: bool) -> float:
    streams = [torch.cuda.Stream(stage.device) if stage.is_cuda else None for _ in range(width)]
    lanes = []
    for stream in streams:
        with _on(stream):
            lanes.append(endless(state_of(stage, run, graphs)))
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
        step = functools.partial(published.step, state.model.train(), state.optimizer.base, published.LOSSES[name])
        batches = itertools.cycle([state.batch(state.train, index, state.augment) for index in itertools.islice(state.batches(), 2)])
        found[name] = seconds_of(lambda step=step, batches=batches: step(next(batches)), stage)
    return {**found, "ratio": found["bisam"] / found["sam"], **_epochs(found)}
