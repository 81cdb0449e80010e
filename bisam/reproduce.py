"""From a table to its records: what is missing is planned, costed, run by several processes, resumed where it was cut, recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from . import _checks, data, files, ledger, models, processes
from .batch import Batch
from .experiments import RESULTS, SCALES, Experiment, LedgerError, experiment, experiments
from .optimizer import SharpnessAware
from .recipe import SGD
from .train import PRECISIONS, Run, exact_kernels, fit
from .workers import check_alone

__all__ = ["CHECKPOINTS", "SMOKE", "Planned", "Settings", "carry_out", "hours", "plan", "prices", "rerun"]

BUILD = RESULTS.parent / "_build"
CHECKPOINTS = BUILD / "checkpoints"
# Tables that no experiment bears upon, and where to look instead.
ELSEWHERE = {
    "T3": "ImageNet has no experiment here; its claims are not attempted",
    "T4": "fine-tuning has no experiment here; its claims are not attempted",
    "T10": "seconds an epoch are measured as ratios by `make bench`; the notebook reproduce_cost reads them",
    "T11": "seconds of a loss are measured as ratios by `make bench`; the notebook reproduce_cost reads them",
}
SMOKE = BUILD / "results"  # smoke runs try the engine; they are no evidence and never stand among the records


@dataclass(frozen=True)
class Settings:
    """How runs are carried out; nothing here changes what comes out of them, except the device in its last bits.

    Args:
        workers: processes at a time, one thread each on a CPU; on a GPU they share it.
        device: ``"cpu"`` or a CUDA device.
        root: folder of the data sets, see :func:`bisam.data.load`.
        minutes: end cleanly within about this time; the same command goes on later.
        folder: the ledger, with the list of claims and the records.
        checkpoints: where unfinished runs are kept.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range; ``torchrun`` has started several of this process.

    Source:
        Ours.

    Example:
        >>> Settings(workers=2).device
        'cpu'
    """

    workers: int = 1
    device: str = "cpu"
    root: str | None = None
    minutes: float | None = None
    folder: Path = RESULTS
    checkpoints: Path = CHECKPOINTS

    def __post_init__(self):
        check_alone("reproduce")
        _checks.keep(self, _checks.whole, "workers")
        _checks.device("device", self.device)
        _checks.optional("root", self.root, of=_checks.path, words="the path of a folder")
        _checks.keep(self, _checks.optional, "minutes", of=_checks.positive)
        _checks.keep(self, _checks.path, "folder", "checkpoints", words="the path of a folder")


@dataclass(frozen=True)
class Planned:
    """One run of an experiment and where it stands.

    Args:
        experiment: its name.
        file: name of the record to be.
        run: what to do.
        recorded: it is done.
        words: what its name is made of: method, axes of the experiment, seed.

    Raises:
        TypeError, ValueError: a name that cannot stand in a path.

    Source:
        Ours.

    Example:
        >>> plan("first_run")[0].recorded
        True
    """

    experiment: str
    file: str
    run: Run
    recorded: bool
    words: dict = field(default_factory=dict)

    def __post_init__(self):
        files.safe_name("experiment", self.experiment)
        files.safe_name("file", self.file)

    @property
    def passes(self) -> float:
        """Forward-backward passes over the training images, all epochs together."""
        return self.run.epochs * self.run.recipe.passes


def plan(
    name: str, scale: str | None = None, seeds: int | None = None, only: Sequence[str] = (), folder: Path = RESULTS
) -> list[Planned]:
    """The runs of an experiment, or of all experiments that bear upon a published table at a scale.

    Args:
        name: of an experiment in ``claims.toml``, or of a table, such as ``"T9"``.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``; which experiments of the table. All if left out.
        seeds: no more than so many of each experiment's seeds.
        only: methods, models and other words that the names of records are made of; all of one kind if left out.
        folder: the ledger.

    Returns:
        The runs, seed by seed as they are made, so that whatever is done first is paired.

    Raises:
        ValueError: an unknown name, scale or word, seeds that the experiment does not have, or a name that cannot stand in a path.
        LedgerError: a record that is there does not belong to the experiment as it is described now.

    Source:
        Ours.

    Example:
        >>> {planned.run.recipe.name for planned in plan("first_run", only=["sam", "noise40"], seeds=2)}
        {'sam'}
    """
    found, folder = [], _checks.path("folder", folder, "the path of a folder")
    for chosen in _asked(name, scale, folder):
        files.safe_name("experiment", chosen.name)
        there = ledger.evidence(chosen.name, _home(chosen, folder), plan=chosen)
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
    kinds: dict[str, set[str]] = {}
    for planned in found:
        for kind, word in planned.words.items():
            kinds.setdefault(kind, set()).add(word)
    for word in _checks.sequence("only", only):
        _checks.choice("only", word, tuple(sorted(set().union(*kinds.values()))))
    wanted = {kind: set(only) & words for kind, words in kinds.items() if set(only) & words}
    return [one for one in found if all(one.words.get(kind) in words for kind, words in wanted.items())]


def _home(chosen: Experiment | str, folder: Path) -> Path:
    """Where the records of an experiment live: smoke runs apart from the evidence."""
    chosen = experiment(chosen, folder) if isinstance(chosen, str) else chosen
    return SMOKE if chosen.scale == "smoke" and folder == RESULTS else folder


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
        >>> prices(plan("first_run"), Settings())
        {}
    """
    seconds: dict[tuple, float] = {}
    found: dict[tuple[str, str], float | data.DataError] = {}
    for one in (one for one in planned if not one.recorded):
        place, run = (one.experiment, one.run.data), one.run.replace(device=settings.device)
        key = (run.data, run.model, run.batch_size, run.train_images, run.test_images, run.precision)
        try:
            if key not in seconds:
                with exact_kernels(settings.device):
                    seconds[key] = _seconds_of_a_pass(run, settings)
            found[place] = found.get(place, 0.0) + seconds[key] * one.passes / 3600
        except data.DataError as error:
            found[place] = error
    return found


def _seconds_of_a_pass(run: Run, settings: Settings) -> float:
    """One forward-backward pass over the training images, from a few steps of the base optimiser at the run's batch size.

    Where a step on a CPU would take longer than a second, fewer images stand for it: the cost of a step is then that of its images.
    """
    task = data.load(
        run.data, settings.root, train_images=run.train_images, test_images=run.test_images, split_seed=run.split_seed
    )
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


def carry_out(planned: Sequence[Planned], settings: Settings, progress: bool = True) -> dict[str, list[str]]:
    """Runs what has no record yet, each run from its checkpoint where there is one, and records it when it is done.

    Args:
        planned: what :func:`plan` returned.
        settings: how.
        progress: show a bar on the terminal; where there is none, a line on the error output for every run that is done.

    Returns:
        The names of the runs by what became of them, ``"recorded"``, ``"cut"`` (out of time, with their checkpoints kept), ``"elsewhere"``
        (another process has them in hand) and ``"failed"``, with the reason after the name.

    Raises:
        bisam.data.DataError: the data are not there; nothing has been started.
        LedgerError: runs are missing of an experiment whose records have an earlier form; nothing has been started.

    Source:
        Ours.

    Example:
        >>> carry_out(plan("first_run"), Settings(), progress=False)
        {'recorded': [], 'cut': [], 'elsewhere': [], 'failed': []}
    """
    missing = [one for one in planned if not one.recorded]
    for name in dict.fromkeys(one.experiment for one in missing):
        ledger.check_schema(experiment(name, settings.folder))
    for name in {one.run.data for one in missing}:  # once, here, so that what is wrong is said once
        data.load(name, settings.root)
    outcomes: dict[str, list[str]] = {"recorded": [], "cut": [], "elsewhere": [], "failed": []}
    end = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes
    with _bar(len(missing), progress) as advance:
        for one, outcome in (_one_by_one if settings.workers == 1 else _side_by_side)(missing, settings, end):
            kind, _, reason = outcome.partition(":")
            outcomes[kind].append(one.file + (f":{reason}" if reason else ""))
            advance(f"{one.file}: {outcome}")
    return outcomes


def _one_by_one(missing: list[Planned], settings: Settings, end: float) -> Iterator[tuple[Planned, str]]:
    for one in missing:
        future: Future = Future()
        try:
            future.set_result(_do(one, settings, end))
        except Exception as error:
            future.set_exception(error)
        yield one, _outcome(future)


def _side_by_side(missing: list[Planned], settings: Settings, end: float) -> Iterator[tuple[Planned, str]]:
    """Hands out runs as processes become free. The processes end with this one, whatever ends it."""
    waiting, running = list(missing), {}
    with ProcessPoolExecutor(settings.workers, get_context("spawn"), processes.follow_parent) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < settings.workers:
                    one = waiting.pop(0)
                    with processes.signals_held_back():  # this starts a process
                        running[pool.submit(_do, one, settings, end)] = one
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), _outcome(future)
        except BaseException:
            for process in list((pool._processes or {}).values()):  # they would train on to the end of their runs
                process.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _outcome(future: Future) -> str:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        raise error  # the GPU is lost to this process: every run after this one would fail as well
    if isinstance(error, (FloatingPointError, LedgerError, RuntimeError, ValueError, OSError)):
        return f"failed: {error}"  # the others go on
    raise error


def _do(one: Planned, settings: Settings, end: float) -> str:
    """One run, from its checkpoint to its record; what became of it in a word.

    ``end`` is a time of the monotonic clock, which all processes of a machine share and nobody sets back.
    """
    if time.monotonic() >= end:
        return "cut"
    chosen = experiment(one.experiment, settings.folder)
    path = settings.checkpoints / one.experiment / f"{one.file}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.held(path.with_suffix(".lock")) as mine, _threads():
        home = _home(chosen, settings.folder)
        if not mine or ledger.is_recorded(one.experiment, one.file, home):
            return "elsewhere"
        minutes = None if math.isinf(end) else max((end - time.monotonic()) / 60, 1e-3)
        history = fit(one.run.replace(device=settings.device), path, root=settings.root, minutes=minutes)
        if not history.finished:
            return "cut"
        ledger.record(history, one.experiment, one.file, chosen.scale, home, root=settings.root)
        path.unlink(missing_ok=True)
    return "recorded"


@contextlib.contextmanager
def _threads(count: int = 1) -> Iterator[None]:
    """Records are made with one thread, so that sums on a CPU do not depend on how many cores and processes there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[str], None]]:
    """Something to call when a run is done, with a word about it: it moves a bar, or writes a line where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show or not console.is_terminal:
        done = itertools.count(1)
        yield lambda note: print(f"{next(done)} of {total}: {note}", file=sys.stderr, flush=True) if show else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("runs"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=note)


def rerun(
    record: Path, root: str | None = None, device: str | None = None, progress: bool = False
) -> dict[str, object]:
    """Trains again what a record describes, from the file alone and with as many threads, and compares.

    Args:
        record: a JSON file of the ledger.
        root: folder of the data sets.
        device: another than that of the record, which moves the last bits.
        progress: show a bar on the terminal.

    Returns:
        ``recorded`` and ``again``, the final numbers of both; ``same_bits``, whether the weights are equal to the last bit;
        ``same_data``; ``why``, sentences that say what may have moved the last bits since the record was made.

    Raises:
        LedgerError: the file is no record.
        ValueError: ``torchrun`` has started several of this process.

    Source:
        Ours.

    Example:
        >>> try:
        ...     rerun(Path("no such file"))
        ... except LedgerError as error:
        ...     print(str(error)[:28])
        no such file cannot be read:
    """
    check_alone("rerun")
    entry = ledger.read(record)
    run = Run.from_dict({**entry["run"], **({"device": device} if device else {})})
    with _threads(ledger.threads(entry)):
        history = fit(run, root=root, progress=progress)
        again = ledger.entry(history, entry["experiment"], entry["scale"], root=root)
    return {
        "recorded": entry["final"],
        "again": again["final"],
        "same_bits": again["weights_digest"] == entry["weights_digest"],
        "same_data": again["data_fingerprint"] == entry["data_fingerprint"],
        "why": ledger.reasons(entry, again),
    }
