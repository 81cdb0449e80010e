"""How long runs will take, from a few timed steps of each network."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import torch

from . import _checks, data, models
from .batch import Batch
from .optimizer import SharpnessAware
from .plans import Planned, Settings, runs_planned
from .recipe import SGD
from .train import PRECISIONS, Run, exact_kernels

__all__ = ["hours", "prices"]


def hours(planned: Sequence[Planned], settings: Settings) -> float:
    """About how long the missing runs will take one process, from a few timed steps of each network.

    Args:
        planned: runs; those that are recorded cost nothing.
        settings: on which device, and where the data are.

    Returns:
        Hours; divide by the number of processes if each has a core of its own.

    Raises:
        bisam.data.DataError: data are not there; :func:`prices` gives the price of the rest.

    Source:
        Ours.

    Example:
        >>> from bisam.plans import plan
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
        planned: runs; those that are recorded cost nothing.
        settings: on which device, and where the data are.

    Source:
        Ours.

    Example:
        >>> from bisam.plans import plan
        >>> prices(plan("first_run"), Settings())
        {}
    """
    _checks.part("settings", settings, Settings, "Settings")
    seconds: dict[tuple, float] = {}
    found: dict[tuple[str, str], float | data.DataError] = {}
    for one in (one for one in runs_planned(planned) if not one.recorded):
        place, run = (one.experiment, one.run.data), one.run.replace(device=settings.devices[0])
        key = (run.data, run.model, run.batch_size, run.train_images, run.test_images, run.pool, run.precision)
        try:
            if key not in seconds:
                with exact_kernels(run.device):
                    seconds[key] = seconds_of_a_pass(run, settings)
            found[place] = found.get(place, 0.0) + seconds[key] * one.passes / 3600
        except data.DataError as error:
            found[place] = error
    return found


def seconds_of_a_pass(run: Run, settings: Settings) -> float:
    """One forward-backward pass over the training images, from a few steps of the base optimiser at the run's batch size.

    Where a step on a CPU would take longer than a second, fewer images stand for it: the cost of a step is then that of its images.
    """
    task = run.task(settings.root)
    size = run.batch_size if run.device != "cpu" else min(run.batch_size, 32)
    seconds = _seconds_of_a_step(run, task, size)
    if seconds * run.batch_size / size < 1.0 and size < run.batch_size:
        size, seconds = run.batch_size, _seconds_of_a_step(run, task, run.batch_size)
    return seconds * len(task.train) / size


def _seconds_of_a_step(run: Run, task: data.Data, size: int, steps: int = 3) -> float:
    with torch.random.fork_rng([torch.device(run.device)] if run.device != "cpu" else []):
        model = models.build(run.model, task.shape, task.classes).to(run.device)
    inputs = task.prepared(task.train.inputs[:size].to(run.device))
    batch = Batch(model, inputs, task.train.targets[:size].to(run.device), PRECISIONS[run.precision])
    optimizer = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.0), SGD)
    optimizer.step(batch)  # the first is slow
    waits = functools.partial(torch.cuda.synchronize, run.device) if run.device != "cpu" else lambda: None
    waits()
    started = time.perf_counter()
    for _ in range(steps):
        optimizer.step(batch)
    waits()
    return (time.perf_counter() - started) / steps
