"""Recorded evidence: claims written before the runs, one file a run, only ever added to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from . import data
from .experiments import RESULTS, Claim, Experiment, LedgerError, claims, experiment, experiments
from .train import History, Run, weights_digest

__all__ = [
    "RESULTS", "Claim", "Experiment", "LedgerError", "claims", "evidence", "experiment", "experiments", "load", "record",
]

SCHEMA = 1
FIELDS = ("schema", "experiment", "scale", "run", "final", "curve", "data_fingerprint", "weights_digest", "environment")


def record(history: History, name: str, file: str, scale: str, folder: Path = RESULTS) -> Path:
    """Writes one run as one new JSON file, in one piece, and never over another.

    Args:
        history: what :func:`~bisam.train.fit` returned.
        name: of the experiment.
        file: name of the record, without ending.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        folder: the ledger.

    Returns:
        The path of the record.

    Raises:
        LedgerError: the record is there already.

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
    path = folder / "runs" / name / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.part")
    draft.write_text(json.dumps(_entry(history, name, scale), indent=1) + "\n", encoding="utf-8")
    try:
        os.link(draft, path)  # fails if the record exists, also when two writers meet
    except FileExistsError:
        raise LedgerError(f"{path} is recorded already; records are only ever added") from None
    finally:
        draft.unlink()
    return path


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
    return {path.stem: _read(path) for path in sorted((folder / "runs" / name).glob("*.json"))}


def evidence(name: str, folder: Path = RESULTS) -> dict[str, dict]:
    """All records of an experiment, after a check that each is a run of the experiment as it is described now.

    Args:
        name: of the experiment.
        folder: the ledger.

    Raises:
        ValueError: an unknown experiment.
        LedgerError: a record that is not in the plan, or whose settings, schema or data differ from it.

    Source:
        Ours.

    Example:
        >>> len(evidence("first_run"))
        80
    """
    plan, records = experiment(name, folder).runs(), load(name, folder)
    for file, entry in records.items():
        if file not in plan or Run.from_dict(entry["run"]) != plan[file]:
            raise LedgerError(f"runs/{name}/{file}.json is no run of {name} as claims.toml describes it now")
        if entry["schema"] != SCHEMA or entry["data_fingerprint"] != data.load(plan[file].data).fingerprint:
            raise LedgerError(f"runs/{name}/{file}.json was made with another schema or other data")
    return records


def _read(path: Path) -> dict:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise LedgerError(f"{path} is no JSON: {error}") from None
    if not isinstance(entry, dict):
        raise LedgerError(f"{path} must hold a JSON object, got {type(entry).__name__}")
    missing = [field for field in FIELDS if field not in entry]
    if missing:
        raise LedgerError(f"{path} lacks {', '.join(missing)}")
    return entry


def _entry(history: History, name: str, scale: str) -> dict:
    columns = [key for key in history.rows[0] if key != "epoch"]
    return {
        "schema": SCHEMA,
        "experiment": name,
        "scale": scale,
        "run": history.run.to_dict(),
        "final": {
            "selected_epoch": history.selected_epoch,
            "selected_test_accuracy": history.selected_test_accuracy,
            "last_test_accuracy": history.last_test_accuracy,
            "skipped": history.skipped,
        },
        "curve": {key: [round(value, 5) for value in history.curve(key)] for key in columns},
        "data_fingerprint": data.load(history.run.data).fingerprint,
        "weights_digest": weights_digest(history.model),
        "environment": environment(history.run.device, history.seconds),
    }


def environment(device: str, seconds: float) -> dict:
    """What a run ran on: versions, device, wall time and the commit of the code."""
    if device.startswith("cuda"):
        device_name = torch.cuda.get_device_name(device)
    else:
        device_name = f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
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
