"""Recorded evidence: one file a run, checked against the experiment that it belongs to."""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..training import Run
from .experiment import DATA_AXES, Experiment
from .listing import experiment, experiments
from .places import RESULTS, LedgerError
from .record import LARGEST, parsed, run_of
from .schema import faults, forms_are_checked

__all__ = ["evidence", "load", "read"]

SHIPPED = ("digits",)  # data that every machine has
# What was found sound in this process, by the digest of its text and by whether its form was checked: a page asks for the same records
# for every table that it draws, and to check them takes longer than to read them.
_SOUND: set[tuple[bytes, bool]] = set()


def read(path: Path) -> dict:
    """One record, after a check of its form and of all that must fit in it.

    In a folder of a ledger, ``runs/EXPERIMENT/FILE.json``, it must be of that experiment; those of schema 1 and 2 may have been
    put aside, into ``EXPERIMENT_earlier``. Elsewhere its experiment must be in the nearest ``claims.toml`` above it, or else in
    that of the project.

    Args:
        path: of the JSON file.

    Raises:
        LedgerError: the file cannot be read, is no record, or holds numbers that do not fit together; the first fault is named.

    Example:
        >>> read(RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json")["scale"]
        'laptop'
    """
    record, wrong = looked_through(path)
    if wrong:
        raise LedgerError(f"{path}{'' if wrong[0].startswith(('lacks', 'cannot', 'is no')) else ':'} {wrong[0]}")
    return record


def load(name: str, folder: Path = RESULTS) -> dict[str, dict]:
    """All records of an experiment, by file name, each as :func:`read` takes it.

    Args:
        name: of the experiment.
        folder: the ledger.

    Example:
        >>> load("an_experiment_without_records")
        {}
    """
    place = _checks.path("folder", folder, "the path of a folder") / "runs" / files.safe_name("name", name)
    return {path.stem: read(path) for path in sorted(place.glob("*.json"))}


def evidence(name: str, folder: Path = RESULTS, plan: Experiment | None = None) -> dict[str, dict]:
    """All records of an experiment, after a check that each is a run of the experiment as it is described now, on any device.

    Data that every machine has are compared with those of this machine; of others the records of the same settings must agree.

    Args:
        name: of the experiment.
        folder: the ledger.
        plan: the experiment, where its description is in another folder.

    Raises:
        LedgerError: a record that is not in the plan, or whose settings, schema or data differ from it.

    Example:
        >>> len(evidence("first_run"))
        80
    """
    plan = plan or experiment(name, folder)
    for file, wrong in departures(plan, records := load(name, folder)):
        raise LedgerError(f"runs/{name}/{file}.json {wrong}")
    return records


def is_recorded(name: str, file: str, folder: Path = RESULTS) -> bool:
    """Whether an experiment has a record of that name, which is without ending."""
    return path_of(name, file, folder).exists()


def path_of(name: str, file: str, folder: Path) -> Path:
    """Where the record of that name is, or would be."""
    folder = _checks.path("folder", folder, "the path of a folder")
    return folder / "runs" / files.safe_name("name", name) / f"{files.safe_name('file', file)}.json"


def departures(plan: Experiment, records: dict[str, dict], planned: dict[str, Run] | None = None) -> Iterator[tuple[str, str]]:
    """Where sound records depart from the experiment as it is described now: the name of the record, and what is wrong."""
    planned, seen = planned or plan.runs(), {}
    for file, found in records.items():
        if file not in planned or run_of(found) != planned[file]:
            yield file, f"is no run of {plan.name} as claims.toml describes it now"
            continue
        run = planned[file]
        fingerprint, images = seen.setdefault(part_of_data(run), _data_of(run, found))
        if found["schema"] != plan.schema or found["data_fingerprint"] != (plan.fingerprint or fingerprint):
            yield file, "was made with another schema or other data"
        if found["scale"] != plan.scale:
            yield file, f"says scale {found['scale']}, but {plan.name} is of scale {plan.scale}"
        if (own := found.get("right", {}).get("images", images)) != images:
            yield file, f"says right.images {own}, but there are {images} test images"


def _data_of(run: Run, found: dict) -> tuple[str, int | None]:
    """Fingerprint and test images that a run must have: those of this machine where every machine has them, else the record's."""
    if run.data in SHIPPED:
        return (task := run.task()).fingerprint, len(task.test)
    return found["data_fingerprint"], found.get("right", {}).get("images")


def part_of_data(run: Run) -> tuple:
    """The settings of a run that its data depend on."""
    return tuple(getattr(run, axis) for axis in DATA_AXES)


def looked_through(path: Path) -> tuple[dict | None, list[str]]:
    """The record in a file, ``None`` where there is none, and everything that is wrong with it."""
    path = _checks.path("path", path)
    try:
        record = parsed(text := _text(path))
    except OSError as error:
        return None, [f"cannot be read: {error.strerror or error}"]
    except ValueError as error:  # no JSON, or no UTF-8
        return None, [f"is no JSON: {error}"]
    return record, _own_faults(record, text) or list(_strangers(record, path.absolute()))


def _own_faults(record: dict, text: str) -> list[str]:
    """What is wrong with a record taken by itself; a text that was found sound is not looked through again."""
    known = hashlib.sha256(text.encode()).digest(), forms_are_checked()
    wrong = [] if known in _SOUND else list(faults(record))
    if not wrong:
        _SOUND.add(known)
    return wrong


def _strangers(record: dict, path: Path) -> Iterator[str]:
    """Whether a record belongs where it lies."""
    name, home = record["experiment"], path.parent.name
    if path.parent.parent.name == "runs":
        aside = record["schema"] < 3 and home.startswith(f"{name}_")  # before runs were recorded again
        if name != home and not aside:
            yield f"experiment is {name}, but the record lies in the folder of {home}"
        return
    lists = (folder for folder in path.parents if (folder / "claims.toml").is_file())
    known = experiments(next(lists, RESULTS))
    if name not in known:
        yield f"experiment {name} is in no list of claims; put the record into the folder runs/{name} of its ledger"
    elif record["scale"] != known[name].scale:
        yield f"scale is {record['scale']}, but {name} is of scale {known[name].scale}"


def _text(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and a record has at most {LARGEST}")
    return path.read_bytes().decode("utf-8")
