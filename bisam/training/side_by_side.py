"""Several trainings in one process, each with its own graph on its own stream: they share the device and nothing else.

A small network leaves most of a large GPU idle. The steps of several trainings, each one CUDA graph, are asked for in turn and run at the same
time; what comes out is what each would have come to alone.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _checks
from ..step.modules import draws_noise
from ..training import checkpoint
from .devices import exact_kernels
from .history import History
from .loop import course, locked, task_of
from .rng import rng_state, seeded_rng
from .run import Run
from .state import State
from .workers import Workers, check_alone

__all__ = ["Job", "fit_side_by_side", "in_turns"]


@dataclass(frozen=True)
class Job:
    """A training to be done beside others.

    Args:
        run: what to do; ``compile`` must be ``"whole-step"``.
        path: its checkpoint, to go on from and to write after an epoch; ``None`` for none.
        graphs: each step is one CUDA graph where the device has them; without, the same step runs eagerly, to the same numbers.
        every: seconds between two checkpoints, which all wait for; the last epoch that the time allows leaves one in any case.

    Example:
        >>> Job(Run(compile="whole-step")).path is None
        True
    """

    run: Run
    path: Path | None = None
    graphs: bool = True
    every: float = 0.0

    def __post_init__(self):
        if _checks.part("run", self.run, Run, "a bisam.training.Run").compile != "whole-step":
            raise ValueError(f'run must have compile "whole-step" to be one of several side by side, got {self.run.compile!r}')
        object.__setattr__(self, "path", _checks.optional("path", self.path, of=_checks.path))
        _checks.flag("graphs", self.graphs)
        _checks.keep(self, _checks.nonnegative, "every")


def fit_side_by_side(
    runs: Sequence[Run], checkpoint_paths: Sequence[str | Path | None] | None = None, *, root: str | Path | None = None, minutes: float | None = None
) -> list[History]:
    """Trains several runs at the same time; each history, in the order of the runs, is that of :func:`~bisam.training.fit` alone.

    Args:
        runs: at least one, all on one device, with ``compile="whole-step"``; they may differ in everything else.
        checkpoint_paths: of each run, as for :func:`~bisam.training.fit`.
        root: folder of the data sets.
        minutes: end cleanly within about this time.

    Raises:
        TypeError, ValueError: no runs, runs on several devices, runs that are not captured, or a network that draws dropout masks,
            which all trainings of a process would draw from one generator.
        bisam.training.checkpoint.CheckpointError, bisam.training.data.DataError, FloatingPointError: as from :func:`~bisam.training.fit`; the
            other trainings end.

    Example:
        >>> runs = [Run(recipe="sam", model="mlp", epochs=1, seed=seed, compile="whole-step") for seed in range(2)]
        >>> [len(history.rows) for history in fit_side_by_side(runs)]
        [1, 1]
    """
    runs = list(_checks.sequence("runs", runs))
    paths = [None] * len(runs) if checkpoint_paths is None else list(_checks.sequence("checkpoint_paths", checkpoint_paths))
    if not runs or len(paths) != len(runs):
        raise ValueError(f"checkpoint_paths must hold a path for each of at least one run, got {len(paths)} for {len(runs)} runs")
    minutes = _checks.optional("minutes", minutes, of=_checks.positive)
    jobs = [Job(run, path) for run, path in zip(runs, paths, strict=True)]
    for job in jobs:
        if job.run.device != runs[0].device:
            raise ValueError(f"runs must be on one device, got {runs[0].device!r} and {job.run.device!r}")
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    found: dict[int, History] = {}
    for job, outcome in in_turns(jobs, len(jobs), root=root, end=end):
        if isinstance(outcome, Exception):
            raise outcome
        found[id(job)] = outcome
    return [found[id(job)] for job in jobs]


def in_turns(jobs: Iterable[Job], width: int, *, root: str | Path | None = None, end: float = math.inf) -> Iterator[tuple[Job, History | Exception]]:
    """Trains jobs, some at a time, and yields each with its history, or with what ended it, as soon as it is done.

    Args:
        jobs: asked for the next as soon as there is room; it may decide then.
        width: so many at a time.
        root: folder of the data sets.
        end: time of ``time.monotonic()`` after which no epoch begins that would probably outlast it.

    Example:
        >>> jobs = [Job(Run(recipe=name, model="mlp", epochs=1, compile="whole-step")) for name in ("sam", "bisam-log", "sgd")]
        >>> sorted(job.run.recipe.name for job, history in in_turns(jobs, width=2) if history.finished)
        ['bisam-log', 'sam', 'sgd']
    """
    check_alone("side by side")
    width, waiting, lanes = _checks.whole("width", width), iter(jobs), []
    try:
        while True:
            while len(lanes) < width and (job := next(waiting, None)) is not None:
                lanes.append(_Lane(_checks.part("jobs", job, Job, "jobs"), root, end))
            if not lanes:
                return
            lane, outcome = _until_one_is_done(lanes)
            lanes.remove(lane)
            yield lane.job, outcome
    finally:
        for lane in lanes:
            lane.close()


def _until_one_is_done(lanes: list[_Lane]) -> tuple[_Lane, History | Exception]:
    # Around all turns, not around each training: the settings of torch are one for all.
    with exact_kernels(lanes[0].job.run.device):
        while True:
            for lane in lanes:
                if (outcome := lane.advance()) is not None:
                    return lane, outcome


class _Lane:
    """One training with its stream. Its first turn makes ready; after that every turn is a step."""

    def __init__(self, job: Job, root: str | Path | None, end: float):
        self.job, self._course = job, _course(job, root, end)
        self._stream = torch.cuda.Stream(job.run.device) if job.run.device.startswith("cuda") else None

    def advance(self) -> History | Exception | None:
        """One turn; what came of the training if it was the last."""
        try:
            with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                next(self._course)
        except StopIteration as done:
            return done.value
        except (FloatingPointError, RuntimeError, ValueError, OSError) as error:
            if isinstance(error, getattr(torch, "AcceleratorError", ())):
                raise  # the device is lost to all
            return error
        return None

    def close(self) -> None:
        """Ends the training where it is, which lets go of its checkpoint and memory."""
        self._course.close()


def _course(job: Job, root: str | Path | None, end: float) -> Generator[None, None, History]:
    run, path, alone = job.run, job.path, Workers(0, 1)
    if path is not None:
        checkpoint.check_writable(path)
    with locked(path, alone):
        task = task_of(run, root)
        with seeded_rng(run.seed, run.device):
            state = State(run, task, alone, job.graphs, root)
            if draws_noise(state.model.train()):
                raise ValueError(f"model {run.model!r} draws dropout masks, which runs side by side would draw from one generator; use fit")
            if path is not None and path.exists():
                state.load(checkpoint.read(path, run.identity()), path)
            state.rng = rng_state(run.device)  # nothing is drawn from it; a checkpoint says so
        if run.device.startswith("cuda"):
            torch.cuda.synchronize(run.device)  # what all share, such as the scale of the images, is made on the stream of the first
        yield
        left = end - time.monotonic()
        if left > 0:
            yield from course(state, path, run.epochs, None if math.isinf(left) else left / 60, every=job.every)
        return state.history
