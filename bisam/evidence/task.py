"""A task of a job array: some runs of a plan, carried out on a node until they are recorded or the node is taken away."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from . import ledger, slurm
from .listing import experiment, experiments
from .places import LedgerError
from .plans import Planned, Settings, home
from .reproduce import carry_out

__all__ = ["Task", "told_to_stop"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # of a cluster that takes a node back


@dataclass(frozen=True)
class Task:
    """What submitit calls on a node. The plan is read there from the ledger, so that a record fits the list of claims that it stands beside.

    When the cluster sends ``TERM``, ``USR1`` or ``USR2``, or the time limit is near, the runs end after their epoch, with their checkpoints, and the
    task asks Slurm to queue it again. What is cut any harder goes on from the last checkpoint too, when Slurm or a later submission
    brings the task back.

    Args:
        runs: pairs of the names of an experiment and of a record in it.
        folder, checkpoints, root, workers, device, loaders: as those of :class:`~bisam.evidence.plans.Settings`, with full paths.
        seconds: of the task, from the start of its script, until no other epoch begins.

    Example:
        >>> from bisam.evidence.places import RESULTS
        >>> Task((("first_run", "sam-noise40-seed0"),), str(RESULTS), "checkpoints", None, 1, "cpu", 3510.0).missing()
        []
    """

    runs: tuple[tuple[str, str], ...]
    folder: str
    checkpoints: str
    root: str | None
    workers: int
    device: str
    seconds: float
    loaders: int | None = None

    def __call__(self) -> dict[str, list[str]]:
        """Carries the runs out, and returns their names by what became of them."""
        missing, come_back = self.missing(), _answer_of_submitit()
        with told_to_stop() as stop:
            outcomes = carry_out(missing, self._settings(missing), stop=stop)
            print(*(f"{len(names)} {kind}" for kind, names in outcomes.items() if names), sep=", ", flush=True)
            if outcomes["cut"] and not is_cancelled():
                come_back()
        wrong = [*outcomes["failed"], *(f"{name}: another process has it in hand" for name in self._without_record(outcomes["elsewhere"]))]
        if wrong:
            raise LedgerError("; ".join(wrong))
        return outcomes

    def checkpoint(self):
        """What is called when the task comes back: the same again, for the ledger says how far it got."""
        return _checks.needs("submitit.helpers", "cluster").DelayedSubmission(self)

    def missing(self) -> list[Planned]:
        """The runs that have no record, as the ledger plans them now."""
        if not (Path(self.folder) / "claims.toml").is_file():
            where = f"on {socket.gethostname()}"
            raise LedgerError(f"{self.folder}/claims.toml is not there {where}: the ledger must lie in a folder that all nodes share")
        known, found = experiments(Path(self.folder)), []
        for name, file in self.runs:
            _checks.choice("experiment", name, known)
            planned = known[name].runs()
            _checks.choice("file", file, planned)
            if not self._is_recorded(name, file):
                found.append(Planned(name, file, planned[file], recorded=False))
        return found

    def _is_recorded(self, name: str, file: str) -> bool:
        return ledger.is_recorded(name, file, home(experiment(name, Path(self.folder)), Path(self.folder)))

    def _without_record(self, files: list[str]) -> list[str]:
        return [file for name, file in self.runs if file in files and not self._is_recorded(name, file)]

    def _settings(self, missing: list[Planned]) -> Settings:
        minutes = max(self.seconds - _spent(), 1.0) / 60
        loaders = self.loaders if any(one.run.loading == "stream" for one in missing) else None  # other tasks of the plan may stream
        return Settings(self.workers, self.device, self.root, minutes, Path(self.folder), Path(self.checkpoints), loaders)


def _spent() -> float:
    """Seconds since the script of the task began, by the clock of the system that nobody sets."""
    began, clock = os.environ.get("BISAM_BEGAN"), Path("/proc/uptime")
    return float(clock.read_text().split()[0]) - float(began) if began and clock.exists() else 0.0


@contextlib.contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Inside, ``TERM``, ``USR1`` and ``USR2`` end nothing: a function says whether one has come, which other processes can be given too.

    Example:
        >>> with told_to_stop() as stop:
        ...     before = stop()
        ...     signal.raise_signal(signal.SIGTERM)
        ...     before, stop()
        (False, True)
    """
    with tempfile.TemporaryDirectory() as folder:
        flag = Path(folder) / "stop"

        def note(number: int, frame: object) -> None:
            flag.touch()
            os.write(2, f"{signal.Signals(number).name}: the runs end after their epoch\n".encode())  # print must not interrupt itself

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield functools.partial(os.path.exists, str(flag))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_cancelled() -> bool:
    """Whether Slurm is clearing this job away for good: one that it takes a node from is still running while it is told."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    # The number of one task of an array is also that of the array, so tasks are named in full.
    if (job := f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID")) is None:
        return False
    try:
        return slurm.said("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip() != "RUNNING"
    except slurm.ClusterError:
        return False  # it cannot be told now; what was cancelled is killed in any case


def _answer_of_submitit() -> Callable[[], None]:
    """What submitit does at its signal: it keeps the task, asks Slurm to queue the job again, and ends this process."""
    number = getattr(signal, f"SIG{_checks.needs('submitit', 'cluster').JobEnvironment.USR_SIG}")
    handler = signal.getsignal(number)

    def come_back() -> None:
        if callable(handler):  # it listens only inside a job of its own
            for each in SIGNALS:  # a second one must interrupt neither this nor `scontrol`, which inherits that
                signal.signal(each, signal.SIG_IGN)
            handler(number, None)

    return come_back
