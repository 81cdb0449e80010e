"""What is to be run for a table or an experiment, and how: nothing here runs anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..training import Run
from ..training.workers import check_alone
from . import ledger
from .experiment import SCALES, Experiment
from .listing import experiments
from .places import RESULTS

__all__ = ["CHECKPOINTS", "SMOKE", "Planned", "Settings", "plan"]

BUILD = RESULTS.parent / "_build"
CHECKPOINTS = BUILD / "checkpoints"
# Tables that no experiment bears upon, and where to look instead.
ELSEWHERE = {
    "T10": "seconds an epoch are measured as ratios by `make bench`; the notebook reproduce_cost reads them",
    "T11": "seconds of a loss are measured as ratios by `make bench`; the notebook reproduce_cost reads them",
}
SMOKE = BUILD / "results"  # smoke runs try the engine; they are no evidence and never stand among the records


@dataclass(frozen=True)
class Settings:
    """How runs are carried out; nothing here changes what comes out of them, except the device in its last bits.

    Args:
        workers: processes at a time on each device, one thread each on a CPU; on a GPU they share it.
        device: ``"cpu"`` or a CUDA device, or several with commas between them, to which the runs are handed in turn.
        root: folder of the data sets, see :func:`bisam.training.data.load`.
        minutes: end cleanly within about this time; the same command goes on later.
        folder: the ledger, with the list of claims and the records.
        checkpoints: where unfinished runs are kept.
        loaders: processes that decode images for each process, where runs stream them; see :func:`bisam.training.fit`.

    Raises:
        TypeError, ValueError: a wrong argument; ``torchrun`` has started several of this process.

    Example:
        >>> Settings(workers=2).device, Settings().devices
        ('cpu', ('cpu',))
    """

    workers: int = 1
    device: str = "cpu"
    root: str | None = None
    minutes: float | None = None
    folder: Path = RESULTS
    checkpoints: Path = CHECKPOINTS
    loaders: int | None = None

    def __post_init__(self):
        check_alone("reproduce")
        _checks.keep(self, _checks.whole, "workers")
        for each in self.devices:
            _checks.device("device", each)
        once = len(set(self.devices)) == len(self.devices) and all(each.startswith("cuda:") for each in self.devices)
        if len(self.devices) > 1 and not once:
            raise ValueError(
                f"device must be one device, or several GPUs by their numbers, each once, such as cuda:0,cuda:1; got {self.device!r}"
            )
        _checks.optional("root", self.root, of=_checks.path, words="the path of a folder")
        _checks.keep(self, _checks.optional, "minutes", of=_checks.positive)
        _checks.keep(self, _checks.optional, "loaders", of=_checks.whole, least=0)
        _checks.keep(self, _checks.path, "folder", "checkpoints", words="the path of a folder")

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, one by one."""
        return tuple(self.device.split(",")) if isinstance(self.device, str) else (self.device,)


@dataclass(frozen=True)
class Planned:
    """One run of an experiment, and whether its record, ``file``, is there.

    ``words`` are what its name is made of: method, axes of the experiment, seed. ``epoch_seconds`` is about how long an epoch takes
    on this machine, 0 where nobody has timed it.

    Example:
        >>> plan("first_run")[0].recorded
        True
    """

    experiment: str
    file: str
    run: Run
    recorded: bool
    words: dict = field(default_factory=dict)
    epoch_seconds: float = 0.0

    def __post_init__(self):
        files.safe_name("experiment", self.experiment)
        files.safe_name("file", self.file)
        _checks.part("run", self.run, Run, "a bisam.training.Run")
        _checks.flag("recorded", self.recorded)
        _checks.part("words", self.words, dict, "a dictionary of the parts of the name")
        _checks.keep(self, _checks.nonnegative, "epoch_seconds")

    @property
    def passes(self) -> float:
        """Forward-backward passes over the training images, all epochs together."""
        return self.run.epochs * self.run.recipe.passes * self.run.trainings

    def checkpoint(self, folder: Path) -> Path:
        """Where the run is kept, below a folder of checkpoints, as long as it is not done."""
        return folder / self.experiment / f"{self.file}.pt"


def plan(name: str, scale: str | None = None, seeds: int | None = None, only: Sequence[str] = (), folder: Path = RESULTS) -> list[Planned]:
    """The runs of an experiment, or of all that bear upon a published table at a scale; seed by seed, so that what is done is paired.

    Args:
        name: of an experiment in ``claims.toml``, or of a table, such as ``"T9"``.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``; which experiments of the table. All if left out.
        seeds: no more than so many of each experiment's seeds.
        only: methods, models and other words that the names of records are made of; all of one kind if left out.
        folder: the ledger.

    Raises:
        ValueError: an unknown name, scale or word, or seeds that the experiment does not have.
        LedgerError: something in the list is wrong, or a record does not belong to the experiment as it is described now.

    Example:
        >>> {planned.run.recipe.name for planned in plan("first_run", only=["sam", "noise40"], seeds=2)}
        {'sam'}
    """
    found, folder = [], _checks.path("folder", folder, "the path of a folder")
    for chosen in _asked(name, scale, folder):
        there = ledger.evidence(chosen.name, home(chosen, folder), plan=chosen)
        count = chosen.seeds if seeds is None else _checks.whole("seeds", seeds)
        if count > chosen.seeds:
            raise ValueError(f"seeds must be at most {chosen.seeds}, as {chosen.name} is described; got {count}")
        chosen = dataclasses.replace(chosen, seeds=count)
        words = chosen.cells()
        found += [Planned(chosen.name, file, run, file in there, words[file]) for file, run in chosen.runs().items()]
    return _filtered(found, only)


def _asked(name: str, scale: str | None, folder: Path) -> list[Experiment]:
    if scale is not None:
        _checks.choice("scale", scale, SCALES)
    if _checks.text("name", name) in ELSEWHERE:
        raise ValueError(f"name {name!r} cannot be run: {ELSEWHERE[name]}")
    known = experiments(folder)
    tables = sorted({table for one in known.values() for table in one.tables})
    _checks.choice("name", name, (*known, *tables))
    named = [one for one in known.values() if name == one.name or name in one.tables]
    found = [one for one in named if scale in (None, one.scale)]
    if not found:
        scales = ", ".join(sorted({one.scale for one in named}, key=SCALES.index))
        raise ValueError(f"scale must be one of {scales} for {name}, got {scale!r}")
    return found


def _filtered(found: list[Planned], only: Sequence[str]) -> list[Planned]:
    """Words of one kind widen the choice, words of different kinds narrow it: two methods at one noise."""
    known = {pair for planned in found for pair in planned.words.items()}
    for word in _checks.sequence("only", only):
        _checks.choice("only", word, sorted({word for _, word in known}))
    wanted = {pair for pair in known if pair[1] in only}
    kinds = {kind for kind, _ in wanted}
    return [one for one in found if all((kind, one.words.get(kind)) in wanted for kind in kinds)]


def home(chosen: Experiment, folder: Path = RESULTS) -> Path:
    """The ledger in which the records of an experiment live: smoke runs apart from the evidence."""
    _checks.part("chosen", chosen, Experiment, "an Experiment")
    folder = _checks.path("folder", folder, "the path of a folder")
    return SMOKE if chosen.scale == "smoke" and folder == RESULTS else folder


def runs_planned(planned: object) -> list[Planned]:
    """The argument of that name, if it holds planned runs and nothing else."""
    return [_checks.part("planned", one, Planned, "a list of Planned, as plan() returns it") for one in _checks.sequence("planned", planned)]
