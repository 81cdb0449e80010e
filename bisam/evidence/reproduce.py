"""From a table to its records: what is missing is run by several processes, resumed where it was cut, and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from .. import _checks
from .. import _files as files
from .._progress import bar
from ..training import Run, bootstrap, data, fit, models, processes
from ..training.environment import threads_held
from ..training.workers import check_alone
from . import ledger, recording
from .listing import experiment, experiments
from .places import LedgerError
from .plans import Planned, Settings, home, runs_planned
from .record import threads

__all__ = ["carry_out", "rerun"]


def carry_out(
    planned: Sequence[Planned], settings: Settings, progress: bool = True, stop: Callable[[], bool] | None = None
) -> dict[str, list[str]]:
    """Runs what has no record yet, from its checkpoint where there is one, and records it when it is done.

    Args:
        planned: what :func:`~bisam.evidence.plans.plan` returned.
        settings: how.
        progress: show a bar on the terminal; where there is none, a line on the error output for every run that is done.
        stop: is asked before each run and each of its epochs, in the process that works on it, to which it is handed; where it says True
            what is left is cut.

    Returns:
        The names of the runs by what became of them, which is ``"recorded"``, ``"cut"`` (out of time or told to stop, or not begun since no
        epoch of it would fit), ``"elsewhere"`` (another process has them in hand), or ``"failed"``, with the reason after the name.

    Raises:
        bisam.training.data.DataError: the data are not there; nothing has been started.
        LedgerError: runs are missing of an experiment whose records have an earlier form; nothing has been started.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> carry_out(plan("first_run"), Settings(), progress=False)
        {'recorded': [], 'cut': [], 'elsewhere': [], 'failed': []}
    """
    missing = [one for one in runs_planned(planned) if not one.recorded]
    _checks.part("settings", settings, Settings, "Settings")
    _checks.flag("progress", progress)
    _checks.optional("stop", stop, of=_checks.function, words="a function that says whether to stop")
    check_ready(missing, settings)
    _take_away_what_is_recorded(settings)
    outcomes: dict[str, list[str]] = {"recorded": [], "cut": [], "elsewhere": [], "failed": []}
    end = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes
    in_time = _in_time(missing, end, outcomes["cut"], stop)
    if settings.workers * len(settings.devices) == 1:
        ended = ((one, _outcome(functools.partial(_do, one, settings, end, stop))) for one in in_time)
    else:
        ended = _side_by_side(in_time, settings, end, stop)
    with bar("", len(missing), "runs", progress, line="{done} of {total}: {note}") as advance:
        for one, outcome in ended:
            kind, _, reason = outcome.partition(":")
            outcomes[kind].append(one.file + (f":{reason}" if reason else ""))
            advance(note=f"{one.experiment}/{one.file}: {outcome}{_found(one, settings) if kind == 'recorded' else ''}")
    return outcomes


def check_ready(missing: Sequence[Planned], settings: Settings) -> None:
    """The errors of :func:`carry_out` before any work, so that what is wrong is said once."""
    for name in dict.fromkeys(one.experiment for one in missing):
        recording.check_schema(experiment(name, settings.folder))
    if settings.loaders is not None and not any(one.run.loading == "stream" for one in missing):
        raise ValueError(f"loaders must be left out where no missing run streams its images; got {settings.loaders}")
    for name, loading in {(one.run.data, one.run.loading) for one in missing}:
        data.load(name, settings.root, loading=loading)
    for name in {one.run.model for one in missing}:
        models.find(name)
        models.sources(name, settings.root)


def _take_away_what_is_recorded(settings: Settings) -> None:
    """Removes the checkpoints of runs that have records: a process that is killed between its two last writes leaves one behind."""
    known = experiments(settings.folder)
    for path in settings.checkpoints.glob("*/*.pt"):
        name = path.parent.name
        if name in known and ledger.is_recorded(name, path.stem, home(known[name], settings.folder)):
            with files.held(path.with_suffix(".lock")) as mine:
                if mine:
                    _forget(path)


def _forget(path: Path) -> None:
    """Removes the checkpoint of a run, and that of the training before it, if it had one."""
    for each in (path, bootstrap.first_path(path)):
        each.unlink(missing_ok=True)


def _in_time(missing: Sequence[Planned], end: float, cut: list[str], stop: Callable[[], bool] | None) -> Iterator[Planned]:
    """Runs, as long as there is time for an epoch of one and nobody says stop; the others are noted as cut."""
    for one in missing:
        if time.monotonic() + one.epoch_seconds < end and not (stop is not None and stop()):
            yield one
        else:
            cut.append(one.file)


def _found(one: Planned, settings: Settings) -> str:
    """What a run has come to, in words."""
    place = home(experiment(one.experiment, settings.folder), settings.folder)
    found = ledger.read(ledger.path_of(one.experiment, one.file, place))
    return f", {found['final']['last_test_accuracy']:.2f} % after {found['environment']['wall_seconds']:.0f} s"


def _side_by_side(missing: Iterator[Planned], settings: Settings, end: float, stop: Callable[[], bool] | None) -> Iterator[tuple[Planned, str]]:
    """Hands out runs as processes become free. The processes end with this one, whatever ends it, and each stays on its device."""
    running, free, others = {}, list(settings.devices) * settings.workers, set(active_children())
    with contextlib.ExitStack() as stack:
        new_pool = functools.partial(ProcessPoolExecutor, settings.workers, get_context("spawn"), processes.follow_parent)
        pools = {device: stack.enter_context(new_pool()) for device in settings.devices}
        try:
            while True:
                while free and (one := next(missing, None)) is not None:
                    device = free.pop(0)
                    with processes.signals_held_back():  # this starts a process
                        future = pools[device].submit(_do, one, dataclasses.replace(settings, device=device), end, stop)
                    running[future] = one, device
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    one, device = running.pop(future)
                    free.append(device)
                    yield one, _outcome(future.result)
        except BaseException:
            for process in set(active_children()) - others:  # they would train on to the end of their runs
                process.kill()
            for pool in pools.values():
                pool.shutdown(cancel_futures=True)
            raise


def _outcome(result: Callable[[], str]) -> str:
    try:
        return result()
    except getattr(torch, "AcceleratorError", ()):
        raise  # the GPU is lost to this process: every run after this one would fail as well
    except (FloatingPointError, LedgerError, RuntimeError, ValueError, OSError) as error:
        return f"failed: {error}"  # the others go on


def _do(one: Planned, settings: Settings, end: float, stop: Callable[[], bool] | None = None) -> str:
    """What became of one run, from its checkpoint to its record; ``end`` is by the monotonic clock, which all processes share."""
    if time.monotonic() >= end:
        return "cut"
    chosen = experiment(one.experiment, settings.folder)
    path = one.checkpoint(settings.checkpoints)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = home(chosen, settings.folder)
    with files.held(path.with_suffix(".lock")) as mine, threads_held(1):  # sums on a CPU must not depend on the number of cores
        if not mine:
            return "elsewhere"
        if ledger.is_recorded(one.experiment, one.file, place):
            _forget(path)
            return "elsewhere"
        recording.check_data(one.run, chosen, place, settings.root)
        minutes = None if math.isinf(end) else max((end - time.monotonic()) / 60, 1e-3)
        loaders = settings.loaders if one.run.loading == "stream" else None
        history = fit(one.run.replace(device=settings.device), path, root=settings.root, minutes=minutes, stop=stop, loaders=loaders)
        if not history.finished:
            return "cut"
        recording.record(history, one.experiment, one.file, chosen.scale, place, root=settings.root)
        _forget(path)
    return "recorded"


def rerun(record: Path, root: str | None = None, device: str | None = None, progress: bool = False) -> dict[str, object]:
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

    Example:
        >>> try:
        ...     rerun(Path("no such file"))
        ... except LedgerError as error:
        ...     print(str(error)[:28])
        no such file cannot be read:
    """
    check_alone("rerun")
    entry = ledger.read(record)
    run = Run.from_dict({**entry["run"], **({} if device is None else {"device": device})})
    with threads_held(threads(entry)):
        history = fit(run, root=root, progress=progress)
        again = recording.entry(history, entry["experiment"], entry["scale"], root=root)
    return {
        "recorded": entry["final"],
        "again": again["final"],
        "same_bits": again["weights_digest"] == entry["weights_digest"],
        "same_data": again["data_fingerprint"] == entry["data_fingerprint"],
        "why": recording.reasons(entry, again),
    }
