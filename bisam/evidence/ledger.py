"""Recorded evidence: one file a run, checked against the experiment that it belongs to."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..training import Run
from .experiment import DATA_AXES, Experiment
from .listing import experiment, experiments
from .places import RESULTS, LedgerError
from .record import LARGEST, parsed, run_of
from .schema import faults

__all__ = ["departures", "evidence", "is_recorded", "load", "load_one", "read"]

SHIPPED = ("digits",)  # data that every machine has


def read(path: Path) -> dict:
    """One record, after a check of its form and of all that must fit in it.

    A record in a folder of a ledger, ``runs/EXPERIMENT/FILE.json``, must be of that experiment; those of schema 1 and 2 may have
    been put aside, into ``EXPERIMENT_earlier``. Elsewhere its experiment must be
    in the nearest ``claims.toml`` above it, or else in that of the project.

    Args:
        path: of the JSON file.

    Raises:
        LedgerError: a file that cannot be read, is no record, or holds numbers that do not fit together; the message names the file
            and the first field that is wrong.

    Example:
        >>> read(RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json")["scale"]
        'laptop'
    """
    for wrong in (found := Reading(path)).faults:
        raise LedgerError(f"{path} {wrong}" if wrong.startswith(("lacks", "cannot", "is no")) else f"{path}: {wrong}")
    return found.record


def load_one(name: str, file: str, folder: Path = RESULTS) -> dict:
    """One record of an experiment.

    Args:
        name: of the experiment.
        file: name of the record, without ending.
        folder: the ledger.

    Raises:
        LedgerError: it is not there or cannot be read, see :func:`read`.

    Example:
        >>> load_one("first_run", "sam-noise40-seed0")["run"]["seed"]
        0
    """
    return read(path_of(name, file, folder))


def load(name: str, folder: Path = RESULTS) -> dict[str, dict]:
    """All records of an experiment, by file name.

    Args:
        name: of the experiment.
        folder: the ledger.

    Raises:
        LedgerError: a record that is none, or does not belong to the experiment, see :func:`read`.

    Example:
        >>> load("an_experiment_without_records")
        {}
    """
    place = _checks.path("folder", folder, "the path of a folder") / "runs" / files.safe_name("name", name)
    return {path.stem: read(path) for path in sorted(place.glob("*.json"))}


def evidence(name: str, folder: Path = RESULTS, plan: Experiment | None = None) -> dict[str, dict]:
    """All records of an experiment, after a check that each is a run of the experiment as it is described now.

    The device may be another than planned. Data that every machine has are compared with those of this machine; of others the
    records of the same settings must agree.

    Args:
        name: of the experiment.
        folder: the ledger.
        plan: the experiment, where its description is in another folder.

    Raises:
        ValueError: an unknown experiment.
        LedgerError: a record that is not in the plan, or whose settings, schema or data differ from it.

    Example:
        >>> len(evidence("first_run"))
        80
    """
    plan = plan or experiment(name, folder)
    records = load(name, folder)
    for file, wrong in departures(plan, records):
        raise LedgerError(f"runs/{name}/{file}.json {wrong}")
    return records


def is_recorded(name: str, file: str, folder: Path = RESULTS) -> bool:
    """Whether an experiment has a record of that name.

    Args:
        name: of the experiment.
        file: name of the record, without ending.
        folder: the ledger.

    Example:
        >>> is_recorded("first_run", "sam-noise40-seed0")
        True
    """
    return path_of(name, file, folder).exists()


def path_of(name: str, file: str, folder: Path) -> Path:
    """Where the record of that name is, or would be."""
    folder = _checks.path("folder", folder, "the path of a folder")
    return folder / "runs" / files.safe_name("name", name) / f"{files.safe_name('file', file)}.json"


def departures(plan: Experiment, records: dict[str, dict]) -> Iterator[tuple[str, str]]:
    """Where sound records depart from the experiment as it is described now: the name of the record, and what is wrong.

    Args:
        plan: the experiment.
        records: by file name, what :func:`load` returned.

    Example:
        >>> records = load("first_run")
        >>> list(departures(experiment("first_run"), {"other": records["sam-noise40-seed0"]}))
        [('other', 'is no run of first_run as claims.toml describes it now')]
    """
    planned, seen = plan.runs(), {}
    for file, found in records.items():
        if file not in planned or run_of(found) != planned[file]:
            yield file, f"is no run of {plan.name} as claims.toml describes it now"
            continue
        run = planned[file]
        expected = seen.setdefault(part_of_data(run), _data_of(run, found))
        if found["schema"] != plan.schema or found["data_fingerprint"] != (plan.fingerprint or expected["fingerprint"]):
            yield file, "was made with another schema or other data"
        if found["scale"] != plan.scale:
            yield file, f"says scale {found['scale']}, but {plan.name} is of scale {plan.scale}"
        images = found.get("right", {}).get("images", expected["images"])
        if images != expected["images"]:
            yield file, f"says right.images {images}, but there are {expected['images']} test images"


def _data_of(run: Run, found: dict) -> dict:
    """What the data of a run must be: those of this machine where every machine has them, else those of the record."""
    if run.data in SHIPPED:
        task = run.task()
        return {"fingerprint": task.fingerprint, "images": len(task.test)}
    return {"fingerprint": found["data_fingerprint"], "images": found.get("right", {}).get("images")}


def part_of_data(run: Run) -> tuple:
    """The settings of a run that its data depend on."""
    return tuple(getattr(run, axis) for axis in DATA_AXES)


@dataclass
class Reading:
    """A file of the ledger as it was read: the record, and everything that is wrong with it."""

    path: Path
    record: dict | None = None
    faults: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.path = _checks.path("path", self.path)
        try:
            self.record = parsed(_text(self.path))
        except OSError as error:
            self.faults = [f"cannot be read: {error.strerror or error}"]
        except ValueError as error:  # no JSON, or no UTF-8
            self.faults = [f"is no JSON: {error}"]
        else:
            self.faults = list(faults(self.record)) or list(self._strangers())

    def _strangers(self) -> Iterator[str]:
        """Whether the record belongs where it lies."""
        name, absolute = self.record["experiment"], self.path.absolute()
        if absolute.parent.parent.name == "runs":
            aside = self.record["schema"] < 3 and absolute.parent.name.startswith(f"{name}_")  # before runs were recorded again
            if name != absolute.parent.name and not aside:
                yield f"experiment is {name}, but the record lies in the folder of {absolute.parent.name}"
            return
        lists = (folder for folder in absolute.parents if (folder / "claims.toml").is_file())
        known = experiments(next(lists, RESULTS))
        if name not in known:
            yield f"experiment {name} is in no list of claims; put the record into the folder runs/{name} of its ledger"
        elif self.record["scale"] != known[name].scale:
            yield f"scale is {self.record['scale']}, but {name} is of scale {known[name].scale}"


def _text(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and a record has at most {LARGEST}")
    return path.read_bytes().decode("utf-8")
