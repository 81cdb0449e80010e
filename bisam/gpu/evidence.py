"""Stage three: the queue of experiments for a GPU, seed by seed, so that whatever is done when the time is over is paired."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..evidence import plans, recording
from ..evidence.listing import experiments
from ..evidence.places import RESULTS, LedgerError
from ..gpu import correctness
from ..training import History, data, graphs
from ..training.checkpoint import CheckpointError
from ..training.side_by_side import Job, in_turns
from .claimed import for_gpus, kind
from .lines import Stage, of_this_session
from .trust import EAGER, Trust, trust

RECORDED = RESULTS / "recorded.txt"
BEFORE = 3.0  # seconds before the end at which no epoch is to be running any more
STILL = "still to do: "  # the lines that say so begin with it
EVERY = 30.0  # seconds between two checkpoints of a run: while one is written, all wait
LONGEST = 1.5  # a run may take so many times as long as is expected


@dataclass(frozen=True)
class Way:
    """How the runs are made."""

    graphs: bool = True  # each step is a graph; otherwise it runs eagerly, to the same numbers
    width: int = 1  # so many at a time
    checkpoints: bool = True  # a run goes on from its checkpoint, and leaves one
    prices: dict[str, float] = field(default_factory=dict)  # seconds of a pass over an image, by kind of run
    reasons: tuple[str, ...] = ()  # why it is not the way that stage two found best


@dataclass
class Queue:
    """What is left to do, and what of it still fits."""

    stage: Stage  # its folder is a ledger with the checkpoints beside it
    waiting: list[plans.Planned]  # in their order
    way: Way = field(default_factory=Way)  # its prices are first those of stage two, then those of runs that are done

    def __post_init__(self):
        self.all = list(self.waiting)
        self.begun: dict[int, tuple[plans.Planned, bool]] = {}  # with whether there was no checkpoint
        self.open = {(one.experiment, one.file): 1.0 for one in self.waiting}  # the share that is still to do
        self.counts: dict[tuple, int] = {}

    def next(self) -> Job | None:
        """The first run that will probably be done in time; else the first of which an epoch will, for its checkpoint is kept; else none."""
        left = self.stage.left - BEFORE
        whole = (one for one in self.waiting if LONGEST * self.seconds(one) < left)
        begun = (one for one in self.waiting if self.way.checkpoints and LONGEST * self.seconds(one) / one.run.epochs < left)
        fits = next(itertools.chain(whole, begun), None) if left > 0 else None
        if fits is None:
            return None
        self.waiting.remove(fits)
        job = Job(fits.run.replace(device=self.stage.device), self._checkpoint(fits), self.way.graphs, EVERY)
        self.begun[id(job)] = fits, job.path is None or not job.path.exists()
        return job

    def _checkpoint(self, one: plans.Planned) -> Path | None:
        if not self.way.checkpoints:
            return None
        path = one.checkpoint(self.stage.out / "checkpoints")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def seconds(self, one: plans.Planned) -> float:
        """What a run will probably take; 0 for a kind that has not been timed here yet."""
        return self.way.prices.get(kind(one.run), 0.0) * one.passes * self.images(one)

    def images(self, one: plans.Planned) -> int:
        key = one.run.data, one.run.train_images
        if key not in self.counts:
            self.counts[key] = len(one.run.task(self.stage.root).train)
        return self.counts[key]

    def done(self, job: Job, outcome: History | Exception) -> plans.Planned:
        """Takes note of how far a run has come, and of its price; not of one that went on, whose seconds may be those of another machine."""
        planned, is_fresh = self.begun.pop(id(job))
        if isinstance(outcome, History) and outcome.rows:
            done = len(outcome.rows) / planned.run.epochs
            self.open[planned.experiment, planned.file] = 1.0 - done
            if is_fresh:
                self.way.prices[kind(planned.run)] = outcome.seconds / (done * planned.passes) / self.images(planned)
        return planned

    def still_to_do(self, seconds: float) -> Iterator[tuple[str, dict]]:
        """What is left of each experiment, and how many sessions it takes, if each gives this stage so many seconds."""
        for name in dict.fromkeys(one.experiment for one in self.all):
            left = [(one, self.open[name, one.file]) for one in self.all if one.experiment == name and self.open[name, one.file]]
            if not left:
                continue
            found = {"runs": len(left), "passes": round(sum(share * one.passes for one, share in left))}
            if all(self.seconds(one) for one, _ in left):
                needed = sum(share * self.seconds(one) for one, share in left) / self.way.width
                found |= {"hours": needed / 3600, "sessions": max(1, math.ceil(needed / seconds))}
            yield name, found


def main(stage: Stage) -> None:
    """Runs what has no record yet, in the way that the checks of this session allow, and records each as soon as it is done.

    The folder of the stage holds ``claims.toml`` and what stages one and two have left; records go to ``runs``, checkpoints to
    ``checkpoints``. A graph that fails may spoil what this process does on the device: after its RuntimeError another one goes on without.
    """
    earlier, seconds = of_this_session(stage.path), max(stage.left, 1.0)
    if stage.left > 0 and not any(line["name"] == EAGER for line in of_this_session(stage.out / "correctness.jsonl")):
        correctness.only(stage, EAGER)
    trusted = trust(stage.out)
    queue = Queue(stage, _planned(stage, trusted.left_out), _way(stage, trusted, earlier))
    stage.note("queue", runs=len(queue.waiting), width=queue.way.width, graphs=queue.way.graphs, reasons=list(queue.way.reasons))
    if trusted.refusal:
        stage.note("nothing is recorded", result="refused", runs=len(queue.waiting), reason=trusted.refusal)
    else:
        _work(stage, queue)
    for name, found in queue.still_to_do(seconds):
        stage.note(f"{STILL}{name}", **found)
    stage.note("end", left=len(queue.waiting), seconds_left=stage.left)


def _work(stage: Stage, queue: Queue) -> None:
    for job, outcome in in_turns(iter(queue.next, None), queue.way.width, root=stage.root, end=stage.end - BEFORE):
        planned = queue.done(job, outcome)
        stage.note(f"{planned.experiment}/{planned.file}", **_settled(stage, planned, job, outcome))
        if job.graphs and _is_of_a_graph(outcome, stage.device):
            raise RuntimeError(f"a graph failed in {planned.experiment}/{planned.file}; another process goes on without graphs") from outcome


def _is_of_a_graph(outcome: History | Exception, device: str) -> bool:
    """Whether a run was ended by what a capture or a replay may have raised. Of files and numbers there are errors of their own."""
    own = isinstance(outcome, (CheckpointError, data.DataError))
    return isinstance(outcome, RuntimeError) and not own and graphs.graph_of(torch.device(device)) is not None


def _way(stage: Stage, trusted: Trust, earlier: list[dict]) -> Way:
    """The way that stage two found best, as far as the checks allow it, and unless an earlier round of this session broke off in it."""
    found, reasons = _found(stage), list(trusted.reasons)
    ends = sum(line["name"] == "end" for line in earlier)
    broke = sum(line["name"] == "queue" and line.get("graphs", True) for line in earlier) > ends
    if broke:
        reasons.append("without graphs: this stage has broken off with them")
    if not found.graphs:
        reasons.append("without graphs: stage two found no gain in them")
    if not (trusted.graphs and found.graphs) or broke:
        return Way(False, 1, trusted.checkpoints, found.eager, tuple(reasons))  # eager steps of several trainings would only wait for Python
    return Way(True, found.width if trusted.side_by_side else 1, trusted.checkpoints, found.prices, tuple(reasons))


def _planned(stage: Stage, left_out: frozenset[str]) -> list[plans.Planned]:
    """Runs without a record, here or in the ledger of the project, of the experiments that this stage can do; why not is said of the others."""
    found: list[plans.Planned] = []
    known = _recorded()
    hindered: dict[str, list[str]] = {}
    for name in for_gpus(stage.out):
        missing = [one for one in plans.plan(name, folder=stage.out) if not one.recorded and f"{name}/{one.file}" not in known]
        if why := _hindrance(missing, stage.root):
            hindered.setdefault(why, []).append(f"{name} ({len(missing)} runs)")
        else:
            found += [one for one in missing if one.run.recipe.name not in left_out]
    if hindered:
        stage.note("left out", **{", ".join(names): why for why, names in hindered.items()})
    return found


def _recorded() -> set[str]:
    """What has a record in the ledger of the project; a packed folder has the names of those alone."""
    names = RECORDED.read_text(encoding="utf-8").split() if RECORDED.is_file() else []
    return {*names, *(f"{path.parent.name}/{path.stem}" for path in (RESULTS / "runs").glob("*/*.json"))}


def _hindrance(missing: list[plans.Planned], root: str | None) -> str | None:
    for mode in {one.run.compile for one in missing} - {"whole-step"}:
        return f'its runs have compile {mode!r}, and only "whole-step" is run side by side; `bisam reproduce` does the others'
    try:
        for name in {one.run.data for one in missing}:
            data.load(name, root)
    except data.DataError as error:
        return str(error)[:300]
    return None


def _settled(stage: Stage, planned: plans.Planned, job: Job, outcome: History | Exception) -> dict:
    if isinstance(outcome, Exception):
        return {"result": "failed", "reason": f"{type(outcome).__name__}: {outcome}"[:500]}
    if not outcome.finished:
        return {"result": "cut", "epochs": len(outcome.rows), "of": planned.run.epochs}
    scale = experiments(stage.out)[planned.experiment].scale
    try:
        path = recording.record(outcome, planned.experiment, planned.file, scale, stage.out, root=stage.root)
    except LedgerError as error:
        return {"result": "failed", "reason": str(error)[:500]}
    if job.path is not None:
        job.path.unlink(missing_ok=True)
    return {
        "result": "recorded", "record": str(path.relative_to(stage.out)), "seconds": outcome.seconds,
        "last_test_accuracy": outcome.last_test_accuracy, "train_accuracy": outcome.fitted,
    }  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """What stage two has left. If nothing: graphs, one at a time, without prices. If it broke off at the first graph: no graphs."""

    width: int = 1
    graphs: bool = True
    prices: dict[str, float] = field(default_factory=dict)
    eager: dict[str, float] = field(default_factory=dict)


def _found(stage: Stage) -> _Found:
    try:
        there = json.loads((stage.out / "found.json").read_text(encoding="utf-8"))
        prices, eager = ({str(name): float(seconds) for name, seconds in there[which].items()} for which in ("prices", "eager"))
        return _Found(int(there.get("width", 1)), bool(there.get("graphs", False)), prices, eager)
    except (OSError, ValueError, KeyError, AttributeError):
        return _Found()
