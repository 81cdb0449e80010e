"""Runs of a plan on a cluster: what is missing is packed into tasks and submitted as one job array, or cancelled."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from . import recording, sbatch, slurm
from .arrays import HERE, Array, alone, arrays, find, folder_of, still_needed, write
from .listing import experiment
from .places import RESULTS
from .plans import Planned, Settings, home, runs_planned
from .reproduce import check_ready
from .sbatch import Options
from .slurm import ClusterError
from .task import Task

__all__ = ["Request", "cancel", "preview", "submit", "to_submit"]


@dataclass(frozen=True)
class Request:
    """What is to be submitted from a plan, and how.

    Args:
        name: of the plan, for the name of the job.
        settings: ledger, checkpoints, data, and how many processes work side by side in a task. Its device is that of this machine.
        options: how runs become tasks, and what the array asks of the cluster.
        device: of the tasks, as in ``settings``; whether it is there is asked on the node.

    Raises:
        TypeError, ValueError: a wrong argument, or two that do not go together.

    Example:
        >>> Request("T1", Settings(workers=4), Options(pack=8)).device
        'cpu'
    """

    name: str
    settings: Settings
    options: Options
    device: str = "cpu"

    def __post_init__(self):
        _checks.line("name", self.name)
        _checks.part("settings", self.settings, Settings, "Settings")
        _checks.part("options", self.options, Options, "Options")
        if not re.fullmatch(r"cpu|cuda|cuda:\d{1,4}(,cuda:\d{1,4})*", _checks.text("device", self.device)):
            raise ValueError(f'device must be "cpu", or GPUs as a task numbers them, such as cuda:0; got {_checks.shown(self.device)}')
        if self.settings.minutes is not None:
            raise ValueError("minutes must be left out on a cluster: the time limit of a task is --time")
        if self.processes > self.options.pack:
            raise ValueError(f"workers must be at most the {self.options.pack} runs that a task holds (--pack), got {self.processes}")
        asked = [key for key, value in self.options.sbatch.items() if key.startswith("gpu") or (key == "gres" and "gpu" in value)]
        if asked and self.device == "cpu":
            raise ValueError(f"device must be a GPU such as cuda:0 where {asked[0]} asks for one, which would stand idle; got 'cpu'")

    @property
    def processes(self) -> int:
        """Trainings side by side in a task."""
        return self.settings.workers * len(self.device.split(","))

    @property
    def processors(self) -> int:
        """Those of a task, one for each training and one for each process that decodes its images."""
        return self.processes * (1 + (self.settings.loaders or 0))


def to_submit(planned: Sequence[Planned], request: Request) -> list[list[Planned]]:
    """The runs that have no record and are not in the queue, as they are packed into tasks.

    Args:
        planned: what :func:`~bisam.evidence.plans.plan` returned.
        request: how.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> to_submit(plan("first_run"), Request("first_run", Settings(), Options()))
        []
    """
    _checks.part("request", request, Request, "a Request")
    found, size = find(request.settings.folder, planned), request.options.pack
    missing = [one for one in planned if found[one.experiment, one.file].kind not in ("recorded", *HERE)]
    return [missing[first : first + size] for first in range(0, len(missing), size)]


def preview(packs: Sequence[Sequence[Planned]], request: Request) -> str:
    """The file that packed runs would be submitted with, after the checks of :func:`submit`; Slurm is asked whether it would take it.

    Args:
        packs: what :func:`to_submit` returned; an empty one has no file.
        request: how.

    Example:
        >>> preview([], Request("first_run", Settings(), Options()))
        ''
    """
    _checks.part("request", request, Request, "a Request")
    _check([runs_planned(_checks.sequence("packs", pack)) for pack in _checks.sequence("packs", packs)], request)
    return sbatch.sbatch_file(len(packs), _executor(request)[1]) if packs else ""


def submit(planned: Sequence[Planned], request: Request) -> tuple[str | None, list[list[Planned]]]:
    """Submits the runs that have no record and are not in the queue as one job array, and notes in the state file which task holds which.

    Args:
        planned: what :func:`~bisam.evidence.plans.plan` returned.
        request: how.

    Returns:
        The number of the job array, ``None`` where nothing was submitted, and the runs of its tasks.

    Raises:
        bisam.training.data.DataError: data are not there.
        ClusterError: Slurm or its answer is missing, or another submission from this ledger is under way; nothing has been submitted.
        LedgerError: runs are missing of an experiment whose records have an earlier form.
        ValueError: a folder that is not there, or an option that ``sbatch`` does not have.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> submit(plan("first_run"), Request("first_run", Settings(), Options()))
        (None, [])
    """
    _checks.part("request", request, Request, "a Request")
    if all(one.recorded for one in runs_planned(planned)):
        return None, []
    folder = request.settings.folder
    with alone(folder):
        packs = to_submit(planned, request)
        _check(packs, request)
        if not packs:
            return None, []
        before, (name, executor) = still_needed(folder), _executor(request)
        runs = [[[one.experiment, one.file] for one in pack] for pack in packs]
        noted = Array(name, None, runs, [])
        write(folder, [*before, noted])  # before it is submitted: jobs are found by their name, also after a kill between the two
        try:
            job = sbatch.submitted([_task(pack, request) for pack in packs], executor)
        except BaseException:
            with contextlib.suppress(ClusterError):  # where nobody can say whether it came through, it stays noted
                if all(one.name != name for one in slurm.jobs()):
                    write(folder, before)
            raise
        write(folder, [*before, dataclasses.replace(noted, job=job)])
    return job, packs


def cancel(folder: Path = RESULTS, planned: Sequence[Planned] | None = None) -> list[str]:
    """Cancels the tasks that are queued or running, and returns what Slurm calls them; records and checkpoints stay.

    Args:
        folder: the ledger.
        planned: only tasks that hold one of these runs; all if ``None``.

    Raises:
        ClusterError: Slurm does not answer, or a submission from this ledger is under way.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cancel(Path(folder) / "mine")
        []
    """
    folder = _checks.path("folder", folder, "the path of a folder")
    wanted = None if planned is None else {(one.experiment, one.file) for one in runs_planned(planned)}
    if not arrays(folder):
        return []
    with alone(folder):
        held, there, ids = arrays(folder), {(job.name, job.index): job for job in slurm.jobs()}, []
        for array in held:
            for index, runs in enumerate(array.tasks):
                if (array.name, index) in there and (wanted is None or not wanted.isdisjoint(map(tuple, runs))):
                    ids.append(there[array.name, index].id if len(array.tasks) > 1 else there[array.name, index].array)
                    array.cancelled.append(index)
        write(folder, held)
        if ids:
            slurm.said("scancel", *ids)
    return ids


def _check(packs: Iterable[Sequence[Planned]], request: Request) -> None:
    """What a task would end with on its node is said here where it can be."""
    missing, settings = [one for pack in packs for one in pack], request.settings
    if settings.root is not None and not Path(settings.root).is_dir():
        raise ValueError(f"root must be a folder that is there, and that all nodes share; got {settings.root!r}")
    check_ready(missing, settings)
    for chosen, run in {(one.experiment, one.run.data): (one.experiment, one.run) for one in missing}.values():
        chosen = experiment(chosen, settings.folder)
        recording.check_data(run, chosen, home(chosen, settings.folder), settings.root)


def _task(pack: Sequence[Planned], request: Request) -> Task:
    settings, options = request.settings, request.options
    root = Path(settings.root or os.environ.get("BISAM_DATA") or "data").expanduser().absolute()
    runs = tuple((one.experiment, one.file) for one in pack)
    places = [str(folder.absolute()) for folder in (settings.folder, settings.checkpoints)]
    return Task(runs, *places, str(root), settings.workers, request.device, 60.0 * options.minutes - options.grace, settings.loaders)


def _executor(request: Request) -> tuple:
    """A name that no other job array has, and what submits one."""
    name = f"bisam-{re.sub('[^A-Za-z0-9_.-]', '-', request.name)}-{secrets.token_hex(4)}"
    return name, sbatch.executor(request.options, name, request.processors, folder_of(request.settings.folder, name))
