"""Writing records: one file a run, only ever added to."""

from __future__ import annotations

import json
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..training import History, Run, weights_digest
from ..training.environment import differences, made_on_by
from .experiment import Experiment
from .ledger import part_of_data, path_of, read
from .places import RESULTS, LedgerError
from .record import SCHEMA, WHICH, packed, parsed, run_of
from .schema import faults

__all__ = ["entry", "record"]


def record(history: History, name: str, file: str, scale: str, folder: Path = RESULTS, root: str | Path | None = None) -> Path:
    """Writes one run as one new JSON file, in one piece and never over another, and returns its path.

    Args:
        history, name, scale, root: as in :func:`entry`.
        file: name of the record, without ending.
        folder: the ledger.

    Raises:
        LedgerError: it is there already, the disk does not take it, or its numbers do not fit each other; nothing half written stays.
        ValueError: a name that would lead elsewhere, or a history that is not finished.

    Example:
        >>> import tempfile
        >>> from bisam.training import fit
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record(fit(Run(model="mlp", epochs=1)), "try", "sam-seed0", "smoke", Path(folder)).name
        'sam-seed0.json'
    """
    path = path_of(name, file, folder)
    text = json.dumps(entry(history, name, scale, root), indent=1) + "\n"
    try:
        wrong = list(faults(parsed(text)))
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        raise LedgerError(f"{path} is not written, for nobody could read it: {wrong[0]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_new(path, text)
    except FileExistsError:
        raise LedgerError(f"{path} is recorded already; records are only ever added") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error}") from None
    return path


def entry(history: History, name: str, scale: str, root: str | Path | None = None) -> dict:
    """What a record holds: the run, its curve and final numbers, and what tells whether it is the same again.

    Args:
        history: what :func:`~bisam.training.fit` returned; one that is not finished is a ``ValueError``.
        name: of the experiment.
        scale: of the experiment.
        root: folder of the data sets, see :func:`bisam.training.data.load`.

    Example:
        >>> from bisam.training import fit
        >>> entry(fit(Run(model="mlp", epochs=1)), "try", "smoke")["right"]["images"]
        500
    """
    run = history.run
    if not history.finished:
        raise ValueError(f"history must be finished: {len(history.rows)} of {run.epochs} epochs are done")
    return {
        "schema": SCHEMA,
        "experiment": name,
        "scale": scale,
        "run": run.to_dict(),
        "final": {
            "selected_epoch": history.selected_epoch,
            **{name: value for metric in history.metrics for name, value in history.final(metric).items()},
            **({"steps": history.steps} if run.rate_by == "step" else {}),
            "broken": sum(history.curve("broken")) / len(history.rows),
            "skipped": history.skipped,
            "train_accuracy": history.fitted,
            "gap": history.fitted - history.last_test_accuracy,
        },
        "curve": {key: [round(value, 5) for value in history.curve(key)] for key in history.rows[-1] if key != "epoch"},
        "right": {"images": len(history.right["last"]), **{which: packed(history.right[which]) for which in WHICH}},
        "data_fingerprint": run.task(root).fingerprint,
        "weights_digest": weights_digest(history.model),
        "environment": made_on_by(run, history.seconds, root),
    }


def check_schema(plan: Experiment) -> None:
    """A ``LedgerError`` unless the records of an experiment have the form that this version writes."""
    if plan.schema != SCHEMA:
        raise LedgerError(
            f"experiment {plan.name} has records of schema {plan.schema}, and this version writes schema {SCHEMA}; "
            "describe the missing runs as an experiment of its own"
        )


def check_data(run: Run, chosen: Experiment, folder: Path = RESULTS, root: str | Path | None = None) -> None:
    """A ``LedgerError`` unless the data of a run here are those that its experiment names, and those of the records that it has."""
    _checks.part("run", run, Run, "a bisam.training.Run")
    _checks.part("chosen", chosen, Experiment, "an Experiment")
    if chosen.fingerprint and (here := run.task(root).fingerprint) != chosen.fingerprint:
        raise LedgerError(f"data {run.data!r} here have fingerprint {here}, experiment {chosen.name} asks for {chosen.fingerprint}")
    records = map(read, sorted(path_of(chosen.name, "any", folder).parent.glob("*.json")))
    first = next((there for there in records if part_of_data(run_of(there)) == part_of_data(run)), None)
    if first is not None and (here := run.task(root).fingerprint) != (there := first["data_fingerprint"]):
        raise LedgerError(f"data {run.data!r} here have fingerprint {here}, those of the records of {chosen.name} have {there}")


def reasons(there: dict, here: dict) -> list[str]:
    """Why the last bits of a run may be others now than in its record, a sentence each."""
    found = differences(there["environment"], here["environment"])
    if there["schema"] < SCHEMA and (there["run"]["recipe"].get("ascent") or {}).get("kind") == "Surrogate":
        return [f"The record is of schema {there['schema']}: since then Q is computed in another form, whose last bits differ.", *found]
    return found
