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
from .experiment import Experiment
from .listing import experiments
from .places import RESULTS, LedgerError
from .record import run_of

__all__ = ["Pooled", "pool"]


@dataclass
class Pooled:
    """What came of taking in another ledger: names of records by what became of them.

    Those ``taken`` are new here; the others are there already with the ``same`` bits of the weights or ``differ``, or are
    ``refused``, with the reason after the name. ``differences`` are those of the last test accuracy, theirs minus ours, in points.

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
        source: the other ledger, a folder with ``runs/EXPERIMENT/FILE.json``, or a ``LedgerError`` says that it is none.
        folder: this one.

    Example:
        >>> found = pool(RESULTS)
        >>> found.taken, found.differ, found.refused
        ([], [], [])
    """
    source, folder = _checks.path("source", source, "the path of a folder"), _checks.path("folder", folder, "the path of a folder")
    if not (source / "runs").is_dir():
        raise LedgerError(f"source {source} has no folder runs")
    found, plans = Pooled(), experiments(folder)
    for place in sorted(path for path in (source / "runs").iterdir() if path.is_dir()):
        records = sorted(place.glob("*.json"))
        if place.name not in plans or plans[place.name].scale == "smoke":
            why = "smoke runs are no evidence" if place.name in plans else "no experiment of that name is described here"
            found.refused += [f"{place.name}/{path.stem}: {why}" for path in records]
        else:
            _pool_experiment(plans[place.name], records, folder, found)
    return found


def _pool_experiment(plan: Experiment, records: Iterable[Path], folder: Path, found: Pooled) -> None:
    here, planned = ledger.load(plan.name, folder), plan.runs()
    of_data: dict[tuple, list[str]] = {}  # the records that are here, by their data
    for file, record in here.items():
        if file in planned and run_of(record) == planned[file]:
            of_data.setdefault(ledger.part_of_data(planned[file]), []).append(file)
    for path in records:
        name, full = path.stem, f"{plan.name}/{path.stem}"
        try:
            theirs = ledger.read(path)
        except LedgerError as error:
            found.refused.append(f"{full}: {error}")
            continue
        beside = of_data.setdefault(ledger.part_of_data(planned[name]), []) if name in planned else []
        first = next((file for file in beside if file != name), None)  # whose data it must share
        compared = {name: theirs} if first is None else {first: here[first], name: theirs}
        wrong = [fault for file, fault in ledger.departures(plan, compared, planned) if file == name]
        if wrong:
            found.refused.append(f"{full}: it {wrong[0]}")
        elif name in here:
            (found.same if theirs["weights_digest"] == here[name]["weights_digest"] else found.differ).append(full)
            found.differences.append(theirs["final"]["last_test_accuracy"] - here[name]["final"]["last_test_accuracy"])
        else:
            place = folder / "runs" / plan.name
            try:
                place.mkdir(parents=True, exist_ok=True)
                files.write_new(place / path.name, json.dumps(theirs, indent=1) + "\n")
            except OSError as error:
                found.refused.append(f"{full}: it cannot be written: {error}")
                continue
            here[name] = theirs
            beside.append(name)
            found.taken.append(full)
