"""Stage three: the queue of experiments for a GPU, seed by seed, so that whatever is done when the time is over is paired."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from .. import data, ledger, plans
from ..experiments import RESULTS, experiments
from ..plans import Planned
from ..side_by_side import Job, in_turns
from ..train import History
from .lines import Stage

__all__ = ["Queue", "for_gpus", "main"]

BEFORE = 3.0  # seconds before the end at which no epoch is to be running any more
LONGEST = 1.5  # a run may take so many times as long as is expected


def for_gpus(folder) -> list[str]:
    """The experiments of a list of claims whose runs are to be made on a GPU, in the order of the file.

    Args:
        folder: the ledger.

    Source:
        Ours.

    Example:
        >>> "digits" in for_gpus(RESULTS)
        False
    """
    return [name for name, one in experiments(folder).items() if one.machine == "gpu"]


def data_of(folder) -> set[str]:
    """The names of the data that these experiments train on."""
    known = experiments(folder)
    return {run.data for name in for_gpus(folder) for run in known[name].runs().values() if run.compile == "whole-step"}


@dataclass
class Queue:
    """What is left to do, and what of it still fits.

    Args:
        stage: the device, the end, and the folder, which is a ledger with the checkpoints beside it.
        waiting: runs in their order.
        prices: seconds of a pass over an image, by network: first as stage two found it, then as runs that are done have taken it.

    Source:
        Ours.

    Example:
        >>> Queue(Stage("evidence", "."), []).next() is None
        True
    """

    stage: Stage
    waiting: list[Planned]
    prices: dict[str, float] = field(default_factory=dict)
    begun: dict[int, Planned] = field(default_factory=dict)
    counts: dict[tuple, int] = field(default_factory=dict)

    def next(self) -> Job | None:
        """The first run that will probably be done in time; else the first of which an epoch will, for its checkpoint is kept; else none."""
        left = self.stage.left - BEFORE
        if left <= 0:
            return None
        fits = next((one for one in self.waiting if LONGEST * self.seconds(one) < left), None)
        fits = fits or next((one for one in self.waiting if LONGEST * self.seconds(one) / one.run.epochs < left), None)
        if fits is None:
            return None
        self.waiting.remove(fits)
        path = self.stage.out / "checkpoints" / fits.experiment / f"{fits.file}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        job = Job(fits.run.replace(device=self.stage.device), path)
        self.begun[id(job)] = fits
        return job

    def jobs(self) -> Iterator[Job]:
        """:meth:`next` as long as there is one."""
        while (job := self.next()) is not None:
            yield job

    def seconds(self, one: Planned) -> float:
        """What a run will probably take; 0 for a network that has not been timed here yet."""
        return self.prices.get(_kind(one), 0.0) * one.passes * self.images(one)

    def images(self, one: Planned) -> int:
        """How many images a run trains on."""
        key = one.run.data, one.run.train_images
        if key not in self.counts:
            self.counts[key] = len(one.run.task(self.stage.root).train)
        return self.counts[key]

    def done(self, job: Job, outcome: History | Exception) -> Planned:
        """Takes note of a run that has come to its end, and of its price."""
        planned = self.begun.pop(id(job))
        if isinstance(outcome, History) and outcome.finished:
            self.prices[_kind(planned)] = outcome.seconds / planned.passes / self.images(planned)
        return planned


def _kind(one: Planned) -> str:
    """What has one price: a network, on images of one size."""
    return one.run.model if one.run.pool == 1 else f"{one.run.model} / {one.run.pool}"


def main(stage: Stage) -> None:
    """Runs what has no record yet, several at a time, and records each as soon as it is done.

    Args:
        stage: its folder holds ``claims.toml``; records go to ``runs``, checkpoints to ``checkpoints``.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bisam.gpu import tiny
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tiny.write(Path(folder))
        ...     main(Stage("evidence", Path(folder), root=f"{folder}/data", end=0.0, quiet=True))
        ...     '"runs": 6' in (Path(folder) / "evidence.jsonl").read_text()
        True
    """
    width, prices = _found(stage)
    queue = Queue(stage, _planned(stage), prices)
    stage.note("queue", runs=len(queue.waiting), width=width)
    for job, outcome in in_turns(queue.jobs(), width, root=stage.root, end=stage.end - BEFORE):
        planned = queue.done(job, outcome)
        stage.note(f"{planned.experiment}/{planned.file}", **_settled(stage, planned, job, outcome))
    stage.note("end", left=len(queue.waiting), seconds_left=stage.left)


def _planned(stage: Stage) -> list[Planned]:
    """Runs without a record, here or in the ledger of the project, of the experiments that this stage can do; why not is said of the others."""
    found: list[Planned] = []
    for name in for_gpus(stage.out):
        missing = [one for one in plans.plan(name, folder=stage.out) if not one.recorded and not ledger.is_recorded(name, one.file, RESULTS)]
        if why := _hindrance(missing, stage.root):
            stage.note(name, result="left out", runs=len(missing), reason=why)
        else:
            found += missing
    return found


def _hindrance(missing: list[Planned], root: str | None) -> str | None:
    for mode in {one.run.compile for one in missing} - {"whole-step"}:
        return f'its runs have compile {mode!r}, and only "whole-step" is run side by side; `bisam reproduce` does the others'
    try:
        for name in {one.run.data for one in missing}:
            data.load(name, root)
    except data.DataError as error:
        return str(error)[:300]
    return None


def _settled(stage: Stage, planned: Planned, job: Job, outcome: History | Exception) -> dict:
    if isinstance(outcome, Exception):
        return {"result": "failed", "reason": f"{type(outcome).__name__}: {outcome}"[:500]}
    if not outcome.finished:
        return {"result": "cut", "epochs": len(outcome.rows), "of": planned.run.epochs}
    scale = experiments(stage.out)[planned.experiment].scale
    try:
        path = ledger.record(outcome, planned.experiment, planned.file, scale, stage.out, root=stage.root)
    except ledger.LedgerError as error:
        return {"result": "failed", "reason": str(error)[:500]}
    job.path.unlink(missing_ok=True)
    return {
        "result": "recorded", "record": str(path.relative_to(stage.out)), "seconds": outcome.seconds,
        "last_test_accuracy": outcome.last_test_accuracy, "train_accuracy": outcome.fitted,
    }  # fmt: skip


def _found(stage: Stage) -> tuple[int, dict[str, float]]:
    """What stage two has left: so many at a time, and seconds of a pass over an image by network; one, and no prices, if it did not come so far."""
    try:
        there = json.loads((stage.out / "found.json").read_text(encoding="utf-8"))
        return int(there.get("width", 1)), {str(name): float(seconds) for name, seconds in there["prices"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return 1, {}
