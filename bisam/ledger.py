"""Recorded evidence: one file a run, only ever added to, checked against the experiment that it belongs to."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from pathlib import Path

import torch

from . import _checks, data
from .experiments import RESULTS, Claim, Experiment, LedgerError, claims, experiment, experiments
from .train import History, Run, weights_digest

__all__ = [
    "RESULTS", "Claim", "Experiment", "LedgerError", "claims", "entry", "environment", "evidence", "experiment", "experiments",
    "is_recorded", "load", "read", "record",
]  # fmt: skip

SCHEMA = 2  # 1: the order of the first epoch and the noisy labels came from one permutation
FIELDS = ("schema", "experiment", "scale", "run", "final", "curve", "data_fingerprint", "weights_digest", "environment")
FINAL = ("selected_epoch", "selected_test_accuracy", "last_test_accuracy")
SHIPPED = ("digits",)  # data that every machine has


def record(
    history: History, name: str, file: str, scale: str, folder: Path = RESULTS, root: str | Path | None = None
) -> Path:
    """Writes one run as one new JSON file, in one piece, and never over another.

    Args:
        history: what :func:`~bisam.train.fit` returned.
        name: of the experiment.
        file: name of the record, without ending.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        folder: the ledger.
        root: folder of the data sets, see :func:`bisam.data.load`.

    Returns:
        The path of the record.

    Raises:
        LedgerError: the record is there already, or the disk does not take it; nothing half written stays.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> from bisam.train import fit
        >>> history = fit(Run(model="mlp", epochs=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record(history, "try", "sam-seed0", "smoke", Path(folder)).name
        'sam-seed0.json'
    """
    path = _path(name, file, folder)
    draft = path.with_suffix(f".{os.getpid()}.part")
    text = json.dumps(entry(history, name, scale, root), indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        os.link(draft, path)  # fails if the record exists, also when two writers meet
    except FileExistsError:
        raise LedgerError(f"{path} is recorded already; records are only ever added") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return path


def is_recorded(name: str, file: str, folder: Path = RESULTS) -> bool:
    """Whether an experiment has a record of that name.

    Args:
        name: of the experiment.
        file: name of the record, without ending.
        folder: the ledger.

    Source:
        Ours.

    Example:
        >>> is_recorded("first_run", "sam-noise40-seed0")
        True
    """
    return _path(name, file, folder).exists()


def _path(name: str, file: str, folder: Path) -> Path:
    folder = _checks.path("folder", folder, "the path of a folder")
    return folder / "runs" / _checks.line("name", name) / f"{_checks.line('file', file)}.json"


def load(name: str, folder: Path = RESULTS) -> dict[str, dict]:
    """All records of an experiment, by file name.

    Args:
        name: of the experiment.
        folder: the ledger.

    Raises:
        LedgerError: a record that is no JSON or lacks a field.

    Source:
        Ours.

    Example:
        >>> load("an experiment without records")
        {}
    """
    place = _checks.path("folder", folder, "the path of a folder") / "runs" / _checks.line("name", name)
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

    Source:
        Ours.

    Example:
        >>> len(evidence("first_run"))
        80
    """
    plan = plan or experiment(name, folder)
    planned, records = plan.runs(), load(name, folder)
    fingerprints: dict[tuple, str] = {}
    for file, found in records.items():
        if file not in planned or _run(found, f"runs/{name}/{file}.json") != planned[file]:
            raise LedgerError(f"runs/{name}/{file}.json is no run of {name} as claims.toml describes it now")
        run = planned[file]
        key = (run.data, run.train_images, run.test_images, run.split_seed)
        expected = fingerprints.setdefault(key, data.load(run.data).fingerprint if run.data in SHIPPED else found["data_fingerprint"])
        if found["schema"] != plan.schema or found["data_fingerprint"] != expected:
            raise LedgerError(f"runs/{name}/{file}.json was made with another schema or other data")
    return records


def _run(found: dict, file: str) -> Run:
    """The run of a record, on the CPU: the device that it was made on may not be here."""
    try:
        return Run.from_dict({**found["run"], "device": "cpu"})
    except (TypeError, ValueError, KeyError) as error:
        raise LedgerError(f"{file} describes no run of this version: {error}") from None


def read(path: Path) -> dict:
    """One record.

    Args:
        path: of the JSON file.

    Raises:
        LedgerError: a file that cannot be read, is no JSON object, lacks a field, or holds numbers that do not fit together.

    Source:
        Ours.

    Example:
        >>> read(RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json")["scale"]
        'laptop'
    """
    path = _checks.path("path", path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise LedgerError(f"{path} is no JSON: {error}") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise LedgerError(f"{path} must hold a JSON object, got {type(found).__name__}")
    missing = [field for field in FIELDS if field not in found]
    if missing:
        raise LedgerError(f"{path} lacks {', '.join(missing)}")
    wrong = _misfit(found)
    if wrong:
        raise LedgerError(f"{path}: {wrong}")
    return found


def _misfit(found: dict) -> str | None:
    """What is wrong with the form of a record, in words, or ``None``."""
    for name in ("run", "final", "curve", "environment"):
        if not isinstance(found[name], dict):
            return f"{name} must be an object, got {type(found[name]).__name__}"
    for name in FINAL:
        if not _is_number(found["final"].get(name)):
            return f"final must hold a finite number as {name}, got {found['final'].get(name)!r}"
    epochs = found["run"].get("epochs")
    for name, column in found["curve"].items():
        if not isinstance(column, list) or len(column) != epochs or not all(map(_is_number, column)):
            return f"curve must hold {epochs} finite numbers as {name}, one an epoch"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def entry(history: History, name: str, scale: str, root: str | Path | None = None) -> dict:
    """What a record holds: the run, its curve and final numbers, and what is needed to tell whether it is the same again.

    Args:
        history: what :func:`~bisam.train.fit` returned.
        name: of the experiment.
        scale: of the experiment.
        root: folder of the data sets, see :func:`bisam.data.load`.

    Source:
        Ours.

    Example:
        >>> from bisam.train import fit
        >>> sorted(entry(fit(Run(model="mlp", epochs=1)), "try", "smoke")["final"])
        ['broken', 'last_test_accuracy', 'selected_epoch', 'selected_test_accuracy', 'skipped']
    """
    columns, run = [key for key in history.rows[0] if key != "epoch"], history.run
    task = data.load(run.data, root, train_images=run.train_images, test_images=run.test_images, split_seed=run.split_seed)
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
        },
        "curve": {key: [round(value, 5) for value in history.curve(key)] for key in columns},
        "data_fingerprint": task.fingerprint,
        "weights_digest": weights_digest(history.model),
        "environment": environment(run.device, history.seconds),
    }


def environment(device: str, seconds: float) -> dict:
    """What a run ran on: versions, device, wall time and the commit of the code.

    Args:
        device: ``"cpu"`` or a CUDA device.
        seconds: wall time of the training.

    Source:
        Ours.

    Example:
        >>> environment("cpu", 1.5)["wall_seconds"]
        1.5
    """
    _checks.device("device", device)
    seconds = _checks.nonnegative("seconds", seconds)
    if device.startswith("cuda"):
        device_name = torch.cuda.get_device_name(device)
    else:
        device_name = f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"cudnn": torch.backends.cudnn.version()} if device.startswith("cuda") else {}),
        "device": device_name,
        "wall_seconds": round(seconds, 2),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the code, with a plus if files have changed since; ``None`` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
