"""How long runs will take, from a few timed steps of each network."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

import torch

from .. import _checks
from ..methods.table import SGD
from ..training import Run, data
from ..training.captured import WARM_UP
from ..training.devices import exact_kernels
from ..training.state import State
from .plans import Planned, Settings, runs_planned

__all__ = ["hours", "prices"]


def hours(planned: Sequence[Planned], settings: Settings) -> float:
    """About how many hours the missing runs will take one process, from a few timed steps of each network.

    Args:
        planned: runs; those that are recorded cost nothing.
        settings: on which device, and where the data are.

    Raises:
        bisam.training.data.DataError: data are not there; :func:`prices` gives the price of the rest.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> hours(plan("first_run"), Settings())
        0.0
    """
    found = prices(planned, settings)
    for price in found.values():
        if isinstance(price, data.DataError):
            raise price
    return sum(found.values(), 0.0)


def prices(planned: Sequence[Planned], settings: Settings) -> dict[tuple[str, str], float | data.DataError]:
    """What :func:`hours` says, by experiment and data set; in place of a number the error, where the data are not there.

    Args:
        planned, settings: as in :func:`hours`.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> prices(plan("first_run"), Settings())
        {}
    """
    _checks.part("settings", settings, Settings, "Settings")
    timed: dict[tuple, tuple[float, float]] = {}
    absent: dict[str, data.DataError] = {}
    found: dict[tuple[str, str], float | data.DataError] = {}
    for one in (one for one in runs_planned(planned) if not one.recorded):
        place, run = (one.experiment, one.run.data), one.run.replace(device=settings.devices[0])
        try:
            if run.data not in absent and kind(run) not in timed:
                timed[kind(run)] = _seconds(run, settings)
        except data.DataError as error:
            absent[run.data] = error
        if run.data in absent:
            found[place] = absent[run.data]
        else:
            start, each = timed[kind(run)]
            found[place] = found.get(place, 0.0) + (start + each * one.passes) / 3600
    return found


def seconds_of_a_pass(run: Run, settings: Settings) -> float:
    """One forward-backward pass over the training images, from a few steps of the base optimiser at the run's batch size."""
    return _seconds(run, settings)[1]


def kind(run: Run) -> tuple:
    """What the seconds of a pass depend on, beside the device."""
    layout = run.data, run.model, run.batch_size, run.train_images, run.pool, run.precision, run.channels_last, run.compile, run.augment
    return *layout, run.base, run.clip is None, run.ema is None, run.mixup > 0, run.loading, run.image_size


def _seconds(run: Run, settings: Settings) -> tuple[float, float]:
    """What a run takes once, to be traced and compiled, and for a pass. What is compiled is compiled for its own batch size alone.

    Where a step on a CPU would take longer than a second, fewer images stand for it: the cost of a step is then that of its images.
    """
    task = run.task(settings.root)
    whole = min(run.batch_size, len(task.train))
    size = min(whole, 32) if run.device == "cpu" and run.compile == "no" else whole
    if run.compile != "no":
        _seconds_of_a_step(run, task, size, settings.root)  # fills what the compiler keeps on disk, which the runs will find there
    start, each = _seconds_of_a_step(run, task, size, settings.root)
    if each * whole / size < 1.0 and size < whole:
        size = whole
        start, each = _seconds_of_a_step(run, task, size, settings.root)
    return start if run.compile != "no" else 0.0, each * len(task.train) / size


def _seconds_of_a_step(run: Run, task: data.Data, size: int, root: str | None, steps: int = 3) -> tuple[float, float]:
    """By how much the first step of a training is longer, and a later one; the batch is cut, augmented and laid out."""
    own = torch.random.fork_rng(range(torch.cuda.device_count()) if run.device != "cpu" else [])
    plain = run.replace(recipe=SGD, batch_size=size, accumulate=1, lr=1e-12, label_noise=0.0, bootstrap=False, seed=0)
    with own, exact_kernels(run.device), contextlib.closing(State(plain, task, root=root)) as state:
        stepping, ready = _stepping(state), 1 if state.whole is None else WARM_UP + 1
        first = _clocked(state, itertools.islice(stepping, ready))
        each = _clocked(state, itertools.islice(stepping, steps)) / steps
    return max(first - ready * each, 0.0), each


def _stepping(state: State) -> Iterator[object]:
    """Steps of a training without an end, as it makes them; of a graph the first few are eager, and then it is captured."""
    while state.whole is not None:
        yield from state.whole.epoch(state.run.lr)
    for index in itertools.cycle(list(itertools.islice(state.batches(), 4))):
        yield state.optimizer.step(state.batch(state.train, index, state.augment))


def _clocked(state: State, steps: Iterable[object]) -> float:
    waits = functools.partial(torch.cuda.synchronize, state.device) if state.device.type == "cuda" else lambda: None
    waits()
    started = time.perf_counter()
    for _ in steps:
        pass
    waits()
    return time.perf_counter() - started
