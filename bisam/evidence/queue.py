r"""One queue of all missing runs, most valuable first.

A run is worth what it narrows. The interval of a comparison of n pairs is about as wide as :math:`1 / \sqrt n`, so one more pair
narrows it by :math:`g(n) = 1 / \sqrt{n + 1} - 1 / \sqrt{n + 2}`, in units of the spread (n + 1 in place of n, so that the first pair
has a finite worth). The pairs that a claim still lacks stand in line: those that lack the fewest runs first, and among these by
seed. With n pairs there, the one in place :math:`k = 0, 1, \dots` will narrow the interval by :math:`g(n + k)`. The worth of a run is

.. math:: \frac{1}{t} \sum_c \frac{g(n_c + k_c)}{m_c}

over the open primary claims c that its pair belongs to, with :math:`m_c` the runs that this pair still lacks and t the seconds of
the run. A claim is primary if it has a family, and open while a planned pair is missing. What runs have shown does not count: a
queue that left a claim once it holds would find too much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .. import _checks
from ..training.data import DataError
from ..training.environment import environment
from . import ledger, places, record, recording
from .claim import Claim
from .experiment import MACHINES, Experiment
from .listing import claims, experiments
from .plans import Planned, Settings, plan
from .prices import kind, seconds_of_a_pass

__all__ = ["RULE", "Job", "queue"]

RULE = (
    "worth of a run: the sum over its open primary claims of (1/sqrt(j+1) - 1/sqrt(j+2)) / (runs that its pair lacks), by second of the run; "
    "j pairs are there or stand before its own in line"
)


@dataclass(frozen=True)
class Job:
    """A missing run with its worth by the rule of the module, its seconds, and the ``id`` of each open primary claim that it is for.

    Example:
        >>> Job(plan("first_run")[0], worth=1e-3, seconds=20.0).claims
        ()
    """

    planned: Planned
    worth: float
    seconds: float
    claims: tuple[str, ...] = ()

    @property
    def timed(self) -> Planned:
        """The run with the seconds of one epoch, so that none is begun for which there is no time."""
        return replace(self.planned, epoch_seconds=self.seconds / self.planned.run.epochs)


@dataclass
class _Open:
    """An open claim: how many pairs it has, and by seed what the others lack."""

    id: str
    count: int
    missing: list[set[tuple[str, str]]]

    def worths(self) -> dict[tuple[str, str], float]:
        """What each missing run is worth to this claim, but for its seconds."""
        line = sorted(self.missing, key=len)  # which leaves seeds in their order
        return {run: gain(self.count + place) / len(pair) for place, pair in enumerate(line) for run in pair}

    def take(self, run: tuple[str, str]) -> None:
        for pair in self.missing:
            pair.discard(run)
        self.count += sum(not pair for pair in self.missing)
        self.missing = [pair for pair in self.missing if pair]


def gain(pairs: int) -> float:
    """By how much one more pair narrows an interval, in units of the spread."""
    pairs = _checks.whole("pairs", pairs, least=0)
    return 1 / math.sqrt(pairs + 1) - 1 / math.sqrt(pairs + 2)


def queue(settings: Settings, machine: str = "cpu") -> tuple[list[Job], dict[str, Exception]]:
    """All missing runs that an open primary claim waits for, in the order in which one process would take them.

    The most valuable come first, and before all others those that were cut.

    Args:
        settings: the ledger, the data, the checkpoints of runs that were cut, and the device that runs are timed on.
        machine: ``"cpu"`` or ``"gpu"``: the experiments that are meant for it.

    Returns:
        The runs; and by experiment why it is left out, where its data are not there or are others than those of its records.

    Example:
        >>> import tempfile
        >>> jobs, absent = queue(Settings(root=tempfile.gettempdir()), machine="gpu")
        >>> [job for job in jobs if job.planned.recorded]
        []
    """
    _checks.part("settings", settings, Settings, "Settings")
    _checks.choice("machine", machine, MACHINES)
    plans = {
        name: one for name, one in experiments(settings.folder).items()
        if one.machine == machine and one.schema == record.SCHEMA and one.scale != "smoke" and not one.stopped
    }  # fmt: skip
    primary = [claim for claim in claims(None, settings.folder) if claim.family and claim.experiment in plans]
    planned = {name: plan(name, folder=settings.folder) for name in dict.fromkeys(claim.experiment for claim in primary)}
    absent = {name: error for name in planned if (error := _absence(plans[name], planned[name], settings))}
    primary = [claim for claim in primary if claim.experiment not in absent]
    runs = {(one.experiment, one.file): one for name in planned if name not in absent for one in planned[name]}
    opened = [_opened(claim, plans[claim.experiment], runs) for claim in primary]
    wanted = {key for each in opened for pair in each.missing for key in pair}
    seconds = _seconds(runs, wanted, settings)
    cut = {key for key in wanted if runs[key].checkpoint(settings.checkpoints).exists()}
    return _ordered(opened, {key: runs[key] for key in runs if key in wanted}, seconds, cut), absent


def _absence(chosen: Experiment, planned: Sequence[Planned], settings: Settings) -> Exception | None:
    """Why runs of an experiment cannot be made here: their data are not there, too few, or others than those of its records."""
    try:
        for run in {one.run.data: one.run for one in planned if not one.recorded}.values():
            run.task(settings.root)
            recording.check_data(run, chosen, settings.folder, settings.root)
    except (DataError, ValueError, places.LedgerError) as error:
        return error
    return None


def _opened(claim: Claim, chosen: Experiment, runs: dict[tuple[str, str], Planned]) -> _Open:
    """The pairs that a claim has, and what the others lack: the runs of both sides with one seed, at all places that it averages over."""
    pairs: dict[str, set[tuple[str, str]]] = {}
    wanted = [(name, place) for name, places in claim.sides(chosen.grid) for place in places]
    for (file, at), words in zip(chosen.places().items(), chosen.cells().values(), strict=True):
        if (words["method"], at) in wanted:
            pairs.setdefault(words["seed"], set()).add((chosen.name, file))
    lacking = [{run for run in pair if not runs[run].recorded} for pair in pairs.values()]
    missing = [pair for pair in lacking if pair]
    return _Open(claim.id, len(lacking) - len(missing), missing)


def _seconds(runs: dict[tuple[str, str], Planned], wanted: set, settings: Settings) -> dict[tuple[str, str], float]:
    """About how long each wanted run takes: by what is recorded of runs like it, where there is any, else from a few timed steps."""
    kinds = {key: kind(one.run) for key, one in runs.items()}
    recorded: dict[tuple, list[float]] = {}
    here = environment("cpu", 0.0)["processor"]
    for name in {name for name, _ in wanted} if settings.device == "cpu" else ():
        for file, found in ledger.load(name, settings.folder).items():
            if (name, file) in runs and found["environment"].get("processor") == here:
                recorded.setdefault(kinds[name, file], []).append(found["environment"]["wall_seconds"] / runs[name, file].passes)
    passes = {each: statistics.median(seconds) for each, seconds in recorded.items()}
    for key in wanted:
        if kinds[key] not in passes:
            passes[kinds[key]] = seconds_of_a_pass(runs[key].run.replace(device=settings.device), settings)
    return {key: passes[kinds[key]] * runs[key].passes for key in wanted}


def _ordered(opened: list[_Open], runs: dict, seconds: dict, cut: set) -> list[Job]:
    """Greedy: the run of the highest worth is taken, its pairs come nearer to being whole, and the worths of others change."""
    worths = {each.id: each.worths() for each in opened}
    claims_of = {run: [each for each in opened if run in worths[each.id]] for run in runs}
    worth = {run: sum(worths[each.id][run] for each in claims_of[run]) / seconds[run] for run in runs}
    found: list[Job] = []
    while worth:
        begun = [run for run in worth if run in cut]
        run = begun[0] if begun else max(worth, key=worth.__getitem__)  # the first of those that are worth the same
        touched = claims_of.pop(run)
        found.append(Job(runs[run], worth.pop(run), seconds[run], tuple(each.id for each in touched)))
        for each in touched:
            each.take(run)
            worths[each.id] = each.worths()
        for other in {other for each in touched for other in worths[each.id]}:
            worth[other] = sum(worths[each.id][other] for each in claims_of[other]) / seconds[other]
    return found
