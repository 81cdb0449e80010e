"""What is timed and how: the median of samples that are long enough, of a training at the size of the published one."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from ..methods.table import RECIPES
from ..training import Run, captured, data
from ..training.state import State
from ..training.workers import Workers
from .lines import Stage
from .trainings import task

EPOCH = 45_000  # images, as in the published table of training times
BATCH = 128
METHODS = ("sam", "bisam-log", "bisam-tanh")


def seconds_of(run: Callable[[], object], stage: Stage, least: float = 0.1) -> float:
    """Seconds of one call: the median of five samples, each of as many calls as take ``least`` seconds, and a wait for the device."""
    for _ in range(2 if stage.tiny else captured.WARM_UP + 3):
        run()
    count = 1
    while not stage.tiny and (took := _sample(run, count, stage)) * count < least:
        count = max(2 * count, math.ceil(count * least / max(took * count, 1e-6) / 2))
    return statistics.median(_sample(run, count, stage) for _ in range(1 if stage.tiny else 5))


def _sample(run: Callable[[], object], count: int, stage: Stage) -> float:
    stage.wait()
    started = time.perf_counter()
    for _ in range(count):
        run()
    stage.wait()
    return (time.perf_counter() - started) / count


@functools.lru_cache(maxsize=2)
def _images(tiny: bool) -> data.Data:
    return task(16 if tiny else 32, 256 if tiny else EPOCH, others=50)


def state_of(stage: Stage, run: Run, graphs: bool = True) -> State:
    torch.manual_seed(0)
    return State(run, _images(stage.tiny), Workers(0, 1), graphs)


def endless(state: State) -> Iterator[None]:
    """The steps of one epoch after the other; the few images of the other splits are looked at between them."""
    while True:
        yield from state.steps()


def as_claimed(stage: Stage, run: Run) -> Run:
    """A run of the list of claims, to be timed: on this device, with clean labels, and without an end."""
    return run.replace(device=stage.device, epochs=10_000, lr=1e-3, label_noise=0.0, train_images=None, test_images=None)


def run_of(stage: Stage, model: str, name: str, compile: str, precision: str) -> Run:
    return Run(
        recipe=RECIPES[name], model=model, epochs=10_000, batch_size=32 if stage.tiny else BATCH, lr=1e-3, device=stage.device, augment="crop-flip",
        precision=precision, compile=compile, channels_last=precision == "bfloat16",
    )  # fmt: skip
