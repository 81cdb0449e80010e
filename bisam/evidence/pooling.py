"""Taking in the records of another ledger."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from . import ledger
from .listing import experiments
from .places import RESULTS, LedgerError

__all__ = ["Pooled", "pool"]


@dataclass
class Pooled:
    """What came of taking in another ledger: names of records by what became of them, and the differences of runs that both have.

    Args:
        taken: new here.
        same: there already, and equal to the last bit of the weights.
        differ: there already, made elsewhere, with other last bits.
        refused: with the reason after the name.
        differences: of the last test accuracy, in points, theirs minus ours, of the runs that both have.

    Example:
        >>> str(Pooled(taken=["a/b"]))
        '1 records taken in, 0 there already with the same bits, 0 there already with other bits, 0 refused'
    """

    taken: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        said = (
            f"{len(self.taken)} records taken in, {len(self.same)} there already with the same bits, "
            f"{len(self.differ)} there already with other bits, {len(self.refused)} refused"
        )
        if not self.differences:
            return said
        mean, largest = statistics.mean(self.differences), max(map(abs, self.differences))
        return f"{said}; theirs minus ours in runs that both have: mean {mean:+.2f} points, largest {largest:.2f}"


def pool(source: Path, folder: Path = RESULTS) -> Pooled:
    """Takes in the records of another ledger: what is new here and belongs to an experiment as it is described here.

    Nothing is written over. Of a run that both ledgers have the numbers are compared.

    Args:
        source: the other ledger, a folder with ``runs/EXPERIMENT/FILE.json``.
        folder: this one.

    Raises:
        LedgerError: there is no such folder.

    Example:
        >>> found = pool(RESULTS)
        >>> found.taken, found.differ, found.refused
        ([], [], [])
    """
    source, folder = (_checks.path(name, value, "the path of a folder") for name, value in (("source", source), ("folder", folder)))
    if not (source / "runs").is_dir():
        raise LedgerError(f"source {source} has no folder runs")
    found, plans = Pooled(), experiments(folder)
    for place in sorted(path for path in (source / "runs").iterdir() if path.is_dir()):
        records = [path for path in sorted(place.glob("*.json"))]
        if place.name not in plans or plans[place.name].scale == "smoke":
            why = "smoke runs are no evidence" if place.name in plans else "no experiment of that name is described here"
            found.refused += [f"{place.name}/{path.stem}: {why}" for path in records]
            continue
        _pool_experiment(place.name, records, folder, found)
    return found


def _pool_experiment(name: str, records: Iterable[Path], folder: Path, found: Pooled) -> None:
    chosen, here = experiments(folder)[name], ledger.load(name, folder)
    for path in records:
        full = f"{name}/{path.stem}"
        try:
            theirs = ledger.read(path)
        except LedgerError as error:
            found.refused.append(f"{full}: {error}")
            continue
        # One record beside the others that are here, which come first and whose data it must share.
        others = {file: record for file, record in here.items() if file != path.stem}
        wrong = [fault for file, fault in ledger.departures(chosen, {**others, path.stem: theirs}) if file == path.stem]
        if wrong:
            found.refused.append(f"{full}: it {wrong[0]}")
        elif path.stem not in here:
            try:
                _take(theirs, folder / "runs" / name / path.name)
            except OSError as error:
                found.refused.append(f"{full}: it cannot be written: {error}")
                continue
            here[path.stem] = theirs
            found.taken.append(full)
        else:
            ours = here[path.stem]
            (found.same if theirs["weights_digest"] == ours["weights_digest"] else found.differ).append(full)
            found.differences.append(theirs["final"]["last_test_accuracy"] - ours["final"]["last_test_accuracy"])


def _take(record: dict, path: Path) -> None:
    """Writes what was checked, in the form in which records are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_new(path, json.dumps(record, indent=1) + "\n")
