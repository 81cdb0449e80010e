"""Several runs at a time, each in a kernel of its own; what is there already is not run again."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import _checks
from .. import _files as files
from .._progress import bar
from .attempt import Attempt, source_of
from .estimate import clock
from .executed import Executed, read
from .find import NotebookError
from .job import Job
from .made import code_digest

__all__ = ["is_done", "missing", "place_of", "run_all", "runs_in"]

POLL = 0.2  # seconds between two looks


def place_of(job: Job, folder: Path) -> Path:
    """Where a run of a sweep is kept.

    Example:
        >>> from bisam.notebook.job import job
        >>> place_of(job("lower_bounds", {"alpha": "0.2"}), Path("out")).as_posix()
        'out/runs/lower_bounds-alpha=0.2.ipynb'
    """
    return folder / "runs" / f"{job.stem}.ipynb"


def is_done(found: Executed, source: str) -> bool:
    """Whether a run came to its end with this code and these cells of the notebook.

    Args:
        found: a run that is there.
        source: digest of the cells of the notebook.

    Example:
        >>> is_done(Executed(Path("out.ipynb"), {}, {}, [], {}, []), "0" * 16)
        False
    """
    return bool(found.made.get("complete")) and found.made.get("source") == source and found.made.get("code") == code_digest()


def missing(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """The runs that are not there with their parameters, this code and these cells.

    Args:
        jobs: all runs of the sweep, one at least.
        folder: of the sweep.

    Example:
        >>> from bisam.notebook.job import job
        >>> len(missing([job("lower_bounds", {"alpha": "0.2"})], Path("nowhere")))
        1
    """
    source = source_of(jobs[0])
    return [job for job in jobs if not _is_there(place_of(job, folder), job, source)]


def _is_there(place: Path, job: Job, source: str) -> bool:
    try:
        found = read(place)
    except NotebookError:
        return False
    return is_done(found, source) and found.parameters == job.all_values


def run_all(jobs: Sequence[Job], folder: Path, workers: int = 1, *, progress: bool = True) -> dict[str, str]:
    """Executes what is missing, several at a time; a run that fails does not stop the others.

    A kernel computes with its share of the cores if there is more than one at a time, unless ``OMP_NUM_THREADS`` says otherwise.

    Args:
        jobs: all runs of the sweep.
        folder: of the sweep.
        workers: how many at a time.
        progress: show how far it has come.

    Returns:
        Name of the run to what went wrong, for those that did not come to their end.

    Raises:
        OSError: the disk does not take what came out; the runs that are done stay, and the same call goes on.

    Example:
        >>> run_all([], Path("nowhere"))
        {}
    """
    _checks.whole("workers", workers)
    _checks.flag("progress", progress)
    waiting, failed = deque(missing(jobs, folder) if jobs else []), {}
    threads = None if workers == 1 or "OMP_NUM_THREADS" in os.environ else max(1, (os.cpu_count() or 1) // workers)
    with bar(jobs[0].path.stem if jobs else "", len(jobs), "runs", progress, done=len(jobs) - len(waiting), line="{title}: {done} of {total} runs, {note}") as advance:
        active: list[_Running] = []
        try:
            while waiting or active:
                while waiting and len(active) < workers:
                    active += _begun(waiting.popleft(), folder, threads, failed, advance)
                time.sleep(POLL)
                for one in [each for each in active if each.attempt.execution.has_ended(0)]:
                    active.remove(one)
                    failed |= one.ended()
                    advance(1, note=one.said())
                if active:
                    advance(0, note=" | ".join(one.now() for one in active))
        except BaseException as stop:
            for one in active:
                one.stopped()
            there = len(jobs) - len(missing(jobs, folder))
            stop.add_note(f"{there} of {len(jobs)} runs are done and in {folder}; the same command goes on with the others")
            raise
    lacking = {job.stem for job in missing(jobs, folder)} if failed else set()  # what another command had in hand may be there now
    return {stem: why for stem, why in failed.items() if stem in lacking}


def _begun(job: Job, folder: Path, threads: int | None, failed: dict[str, str], advance) -> list[_Running]:
    """A run that has been started; none if another command has it in hand."""
    one = _Running(job, place_of(job, folder), threads)
    if one.is_mine:
        return [one]
    failed[job.stem] = "another command that runs now has it in hand"
    advance(1, note=f"{job.stem} is in the hands of another command")
    return []


class _Running:
    """One run of several, with the lock on its place."""

    def __init__(self, job: Job, place: Path, threads: int | None):
        self.job, self._began = job, time.monotonic()
        self._trouble = ""
        with contextlib.ExitStack() as stack:
            self.is_mine = stack.enter_context(files.held(place.with_name(f".{place.name}.lock")))
            if self.is_mine:
                self.attempt = stack.enter_context(Attempt(job, place, threads=threads))
                self.attempt.execution.start()
            self._stack = stack.pop_all()

    def ended(self) -> dict[str, str]:
        with self._stack:
            try:
                self.attempt.finish(replace=True)
            except NotebookError as error:
                self._trouble = str(error).partition("\n")[0]
        return {self.job.stem: self._trouble} if self._trouble else {}

    def stopped(self) -> None:
        with self._stack:
            self.attempt.execution.stop()
            self.attempt.keep()

    def said(self) -> str:
        return f"{self.job.stem} " + (f"failed: {self._trouble}" if self._trouble else f"took {clock(time.monotonic() - self._began)}")

    def now(self) -> str:
        inside = self.attempt.feed.latest()
        execution = self.attempt.execution
        return f"{self.job.stem} {execution.done}/{execution.cells}" + (f" {inside}" if inside else "")


def runs_in(folder: Path, source: str) -> Iterator[tuple[Executed, bool]]:
    """Every run that is kept in a sweep, and whether it was made with this code and these cells.

    Args:
        folder: of the sweep.
        source: digest of the cells of the notebook.

    Example:
        >>> list(runs_in(Path("nowhere"), "0" * 16))
        []
    """
    for path in sorted((folder / "runs").glob("*.ipynb")):
        if path.name.endswith(".partial.ipynb"):
            continue
        with contextlib.suppress(NotebookError):
            found = read(path)
            yield found, is_done(found, source)
