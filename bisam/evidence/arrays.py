"""The state file beside a ledger: which job array holds which runs, and what has become of each.

The ledger alone says what is done. A run without a record is queued or running if ``squeue`` has the task that holds it, and lost if it has not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from .. import _files as files
from . import ledger, slurm
from .listing import experiments
from .places import RESULTS
from .plans import BUILD, Planned, home, runs_planned
from .slurm import ClusterError, Job

__all__ = ["Found", "find", "place"]

FORM = 1  # of the state file
HERE = ("queued", "running")  # what the queue has in hand


@dataclass(frozen=True)
class Array:
    """A job array as the state file has it: its name, its number once Slurm has given one, and the runs of each task."""

    name: str
    job: str | None
    tasks: list[list[list[str]]]
    cancelled: list[int]


@dataclass(frozen=True)
class Found:
    """What has become of a run: ``kind`` is ``"recorded"``, ``"running"``, ``"queued"``, ``"cancelled"``, ``"lost"`` or ``"not submitted"``.

    ``job`` is the task that has it in hand, ``log`` what the last task that had it has printed.

    Example:
        >>> Found("recorded").job is None
        True
    """

    kind: str
    job: Job | None = None
    log: Path | None = None


def place(folder: Path = RESULTS) -> Path:
    """Where the state file of a ledger and the logs of its jobs lie: beside it, those of this project in ``_build/cluster``.

    Args:
        folder: the ledger.

    Example:
        >>> place(Path("/shared/mine")).name
        'mine-cluster'
    """
    folder = _checks.path("folder", folder, "the path of a folder").absolute()
    return BUILD / "cluster" if folder.resolve() == RESULTS.resolve() else folder.parent / f"{folder.name}-cluster"


def find(folder: Path = RESULTS, planned: Sequence[Planned] = ()) -> dict[tuple[str, str], Found]:
    """What has become of the runs that were submitted, and of planned ones, by the names of experiment and record.

    Args:
        folder: the ledger.
        planned: runs that are looked up too.

    Raises:
        ClusterError: the state file is damaged, or Slurm does not answer.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> {found.kind for found in find(planned=plan("first_run")).values()}
        {'recorded'}
    """
    folder, planned = _checks.path("folder", folder, "the path of a folder"), runs_planned(planned)
    known, held = experiments(folder), arrays(folder)
    there = {(job.name, job.index): job for job in (slurm.jobs() if held else [])}
    found = {(one.experiment, one.file): Found("not submitted") for one in planned}
    for array in held:
        for index, runs in enumerate(array.tasks):
            of_task = _of_task(folder, array, index, there.get((array.name, index)))
            for key in map(tuple, runs):
                if key not in found or found[key].kind not in HERE:  # of several arrays the last one counts, or the one that is at work
                    found[key] = of_task
    recorded = {key for key in found if key[0] in known and ledger.is_recorded(*key, home(known[key[0]], folder))}
    return {key: dataclasses.replace(one, kind="recorded") if key in recorded else one for key, one in found.items()}


def _of_task(folder: Path, array: Array, index: int, job: Job | None) -> Found:
    number = f"{array.job}_{index}" if len(array.tasks) > 1 else array.job
    log = None if array.job is None else folder_of(folder, array.name) / f"{number}_0_log.err"
    if job is not None:
        return Found("running" if job.is_running else "queued", job, log)
    return Found("cancelled" if index in array.cancelled else "lost", None, log)


def folder_of(folder: Path, name: str) -> Path:
    return place(folder) / "jobs" / name


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two submissions at a time would both find the same runs missing."""
    place(folder).mkdir(parents=True, exist_ok=True)
    with files.held(place(folder) / "state.lock") as mine:
        if not mine:
            raise ClusterError(f"another command submits or cancels jobs of {folder} now: try again when it is done")
        yield


def still_needed(folder: Path) -> list[Array]:
    """The arrays that hold a run without a record."""
    found = find(folder)
    return [array for array in arrays(folder) if any(found[tuple(run)].kind != "recorded" for runs in array.tasks for run in runs)]


def arrays(folder: Path) -> list[Array]:
    path = place(folder) / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["form"] != FORM:
            raise ValueError(f"form {state['form']}")
        return [Array(**one) for one in state["arrays"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ClusterError(f"{path} cannot be read ({why}). Look with `squeue --me` which jobs there are, cancel those that begin with bisam, and delete it") from None


def write(folder: Path, held: Sequence[Array]) -> None:
    text = json.dumps({"form": FORM, "arrays": [dataclasses.asdict(one) for one in held]}, indent=1)
    files.write_whole(place(folder) / "state.json", f"{text}\n")
