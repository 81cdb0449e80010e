"""Recorded evidence: one file a run, only ever added to, checked against the experiment that it belongs to."""

from __future__ import annotations

import errno
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..evidence import record as _record
from ..training import History, Run, weights_digest
from ..training.environment import commit, differences, environment, made_on_by
from .experiments import DATA_AXES, RESULTS, Claim, Experiment, LedgerError, claims, experiment, experiments
from .record import bits, packed

__all__ = [
    "RESULTS", "Claim", "Experiment", "LedgerError", "bits", "check_data", "check_schema", "claims", "commit",
    "departures", "entry", "environment", "evidence", "experiment", "experiments", "is_recorded", "load", "load_one", "read", "reasons", "record", "threads",
]  # fmt: skip

# 1: the order of the first epoch and the noisy labels came from one permutation. 2: without the bits of the test images, the
# accuracy on the training images and the kind of processor; Q in a form whose last bits differ.
SCHEMA = 3
SHIPPED = ("digits",)  # data that every machine has


def record(
    history: History, name: str, file: str, scale: str, folder: Path = RESULTS, root: str | Path | None = None
) -> Path:
    """Writes one run as one new JSON file, in one piece, and never over another.

    Args:
        history: what :func:`~bisam.training.fit` returned.
        name: of the experiment.
        file: name of the record, without ending.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        folder: the ledger.
        root: folder of the data sets, see :func:`bisam.training.data.load`.

    Returns:
        The path of the record.

    Raises:
        LedgerError: the record is there already, the disk does not take it, or its numbers do not fit each other; nothing half written
            stays.
        ValueError: a name that would lead elsewhere, or a history that is not finished.

    Example:
        >>> import tempfile
        >>> from bisam.training import fit
        >>> history = fit(Run(model="mlp", epochs=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record(history, "try", "sam-seed0", "smoke", Path(folder)).name
        'sam-seed0.json'
    """
    path = _path(name, file, folder)
    text = json.dumps(entry(history, name, scale, root), indent=1) + "\n"
    for wrong in _text_faults(text):
        raise LedgerError(f"{path} is not written, for nobody could read it: {wrong}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_new(path, text)
    except FileExistsError:
        raise LedgerError(f"{path} is recorded already; records are only ever added") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error}") from None
    return path


def check_schema(plan: Experiment) -> None:
    """Runs of an experiment can be recorded now: its records have the form that this version writes.

    Args:
        plan: the experiment.

    Raises:
        LedgerError: its records have an earlier form.

    Example:
        >>> try:
        ...     check_schema(experiment("digits"))
        ... except LedgerError as error:
        ...     print(str(error)[:51])
        experiment digits has records of schema 2, and this
    """
    if plan.schema != SCHEMA:
        raise LedgerError(
            f"experiment {plan.name} has records of schema {plan.schema}, and this version writes schema {SCHEMA}; "
            "describe the missing runs as an experiment of its own"
        )


def threads(record: dict) -> int:
    """The number of threads that a record was made with; one where the record does not say.

    Args:
        record: what :func:`read` returned.

    Example:
        >>> threads({"environment": {"device": "x86_64 CPU, 1 of 2 threads"}}), threads({"environment": {"threads": 4}})
        (1, 4)
    """
    found = re.search(r"(\d+) of \d+ threads", record["environment"].get("device", ""))
    return record["environment"].get("threads") or int(found[1] if found else 1)


def reasons(there: dict, here: dict) -> list[str]:
    """Why the last bits of a run may be others now than in its record, a sentence each.

    Args:
        there: the record.
        here: of the run made again, see :func:`entry`.

    Example:
        >>> there = read(RESULTS / "runs" / "digits" / "bisam-log-noise40-seed0.json")
        >>> reasons(there, there)[0][:58]
        'The record is of schema 2: since then Q is computed in ano'
    """
    ascent = there["run"]["recipe"].get("ascent") or {}
    older = there["schema"] < SCHEMA and ascent.get("kind") == "Surrogate"
    rewritten = f"The record is of schema {there['schema']}: since then Q is computed in another form, whose last bits differ."
    return ([rewritten] if older else []) + differences(there["environment"], here["environment"])


def check_data(run: Run, chosen: Experiment, folder: Path = RESULTS, root: str | Path | None = None) -> None:
    """The data of a run here are those that its experiment names, and those of the records that it has.

    Args:
        run: what is to be recorded.
        chosen: the experiment.
        folder: the ledger that has its records.
        root: folder of the data sets.

    Raises:
        TypeError: an argument of another kind.
        LedgerError: they are others; nothing that is trained on them could stand in that experiment.

    Example:
        >>> check_data(Run(), experiment("first_run"))
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    _checks.part("chosen", chosen, Experiment, "an Experiment")
    if chosen.fingerprint and (here := run.task(root).fingerprint) != chosen.fingerprint:
        raise LedgerError(f"data {run.data!r} here have fingerprint {here}, experiment {chosen.name} asks for {chosen.fingerprint}")
    wanted = _part_of_data(run)
    for path in sorted(_path(chosen.name, "any", folder).parent.glob("*.json")):
        there = read(path)
        if _part_of_data(_record.run_of(there)) == wanted:
            if (here := run.task(root).fingerprint) != there["data_fingerprint"]:
                raise LedgerError(f"data {run.data!r} here have fingerprint {here}, those of the records of {chosen.name} have {there['data_fingerprint']}")
            return


def _part_of_data(run: Run) -> tuple:
    return tuple(getattr(run, axis) for axis in DATA_AXES)


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
    return _path(name, file, folder).exists()


def _path(name: str, file: str, folder: Path) -> Path:
    folder = _checks.path("folder", folder, "the path of a folder")
    return folder / "runs" / files.safe_name("name", name) / f"{files.safe_name('file', file)}.json"


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
    return read(_path(name, file, folder))


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
        if file not in planned or _record.run_of(found) != planned[file]:
            yield file, f"is no run of {plan.name} as claims.toml describes it now"
            continue
        run = planned[file]
        expected = seen.setdefault(_part_of_data(run), _data_of(run, found))
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


@dataclass
class Reading:
    """A file of the ledger as it was read: the record, and everything that is wrong with it."""

    path: Path
    record: dict | None = None
    faults: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.path = _checks.path("path", self.path)
        try:
            self.record = _record.parsed(_text(self.path))
        except OSError as error:
            self.faults = [f"cannot be read: {error.strerror or error}"]
        except ValueError as error:  # no JSON, or no UTF-8
            self.faults = [f"is no JSON: {error}"]
        else:
            self.faults = list(_record.faults(self.record)) or list(self._strangers())

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


def _text_faults(text: str) -> Iterator[str]:
    try:
        yield from _record.faults(_record.parsed(text))
    except ValueError as error:
        yield str(error)


def _text(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_size > _record.LARGEST:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and a record has at most {_record.LARGEST}")
    return path.read_bytes().decode("utf-8")


def entry(history: History, name: str, scale: str, root: str | Path | None = None) -> dict:
    """What a record holds: the run, its curve and final numbers, and what is needed to tell whether it is the same again.

    Args:
        history: what :func:`~bisam.training.fit` returned.
        name: of the experiment.
        scale: of the experiment.
        root: folder of the data sets, see :func:`bisam.training.data.load`.

    Raises:
        ValueError: the history is not finished.

    Example:
        >>> from bisam.training import fit
        >>> found = entry(fit(Run(model="mlp", epochs=1)), "try", "smoke")
        >>> found["right"]["images"], int(bits(found, "last").sum()) / 5 == found["final"]["last_test_accuracy"]
        (500, True)
    """
    run = history.run
    if not history.finished:
        raise ValueError(f"history must be finished: {len(history.rows)} of {run.epochs} epochs are done")
    columns = [key for key in history.rows[-1] if key != "epoch"]
    task = run.task(root)
    return {
        "schema": SCHEMA,
        "experiment": name,
        "scale": scale,
        "run": run.to_dict(),
        "final": {
            "selected_epoch": history.selected_epoch,
            "selected_test_accuracy": history.selected_test_accuracy,
            "last_test_accuracy": history.last_test_accuracy,
            "broken": sum(history.curve("broken")) / len(history.rows),
            "skipped": history.skipped,
            "train_accuracy": history.fitted,
            "gap": history.fitted - history.last_test_accuracy,
        },
        "curve": {key: [round(value, 5) for value in history.curve(key)] for key in columns},
        "right": {
            "images": len(history.right["last"]),
            **{which: packed(history.right[which]) for which in ("selected", "last")},
        },
        "data_fingerprint": task.fingerprint,
        "weights_digest": weights_digest(history.model),
        "environment": made_on_by(run, history.seconds),
    }
