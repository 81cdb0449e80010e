r"""Records of several machines in one ledger: who made them, whether the machines agree, and how another's records come in.

Where a claim has pairs from several machines, Welch's analysis of variance asks whether their mean differences :math:`\bar d_k`, with standard errors
:math:`e_k`, differ by more than chance:

.. math:: F \propto \sum_k \frac{(\bar d_k - \bar d)^2}{e_k^2}, \qquad \bar d = \frac{\sum_k \bar d_k / e_k^2}{\sum_k 1 / e_k^2}
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from . import ledger
from .claim import Claim
from .experiment import Experiment
from .listing import experiments
from .places import RESULTS, LedgerError
from .selection import entries

__all__ = ["Agreement", "Machine", "Part", "Pooled", "agreement", "machine", "machines", "pool"]

FEWEST = 10  # pairs of a machine; with fewer the test finds differences that are none
FINAL = ("selected_test_accuracy", "last_test_accuracy")


@dataclass(frozen=True)
class Machine:
    """What one kind of machine has added.

    Args:
        name: the processor or the GPU.
        runs: records.
        hours: of training, by the wall.
        experiments: their names.

    Example:
        >>> Machine("a processor", 2, 0.5, ("first_run",)).runs
        2
    """

    name: str
    runs: int
    hours: float
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The pairs of a claim that one kind of machine has made: their number, their mean difference and its standard error.

    Example:
        >>> Part("a processor", 12, 0.3, 0.1).pairs
        12
    """

    machine: str
    pairs: int
    mean: float
    error: float


@dataclass(frozen=True)
class Agreement:
    """A claim by machines: the parts with ten pairs or more, and the p of their having one true difference.

    It is ``None`` for one part, and where a part has no spread.

    Source:
        The test is Welch's (1951).

    Example:
        >>> Agreement((Part("a processor", 12, 0.3, 0.1),), None).p
    """

    parts: tuple[Part, ...]
    p: float | None


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


def machine(record: Mapping) -> str:
    """The kind of machine that a record was made on: its GPU, or its processor where the record says it.

    Args:
        record: what :func:`bisam.evidence.ledger.read` returned.

    Example:
        >>> machine({"environment": {"device": "x86_64 CPU, 1 of 2 threads"}})
        'x86_64 CPU (kind not recorded)'
    """
    there = _checks.part("record", record, Mapping, "a record, as bisam.evidence.ledger.read() returns it")["environment"]
    if "cuda" in there:
        return there["device"]
    return there.get("processor") or there["device"].partition(",")[0] + " (kind not recorded)"


def machines(folder: Path = RESULTS) -> list[Machine]:
    """All kinds of machines that have added to a ledger, those with the most records first.

    Args:
        folder: the ledger.

    Example:
        >>> sum(each.runs for each in machines()) >= 1806
        True
    """
    runs: dict[str, list[tuple[str, float]]] = {}
    for name in experiments(folder):
        for record in ledger.load(name, folder).values():
            runs.setdefault(machine(record), []).append((name, record["environment"]["wall_seconds"] / 3600))
    found = [
        Machine(kind, len(made), sum(hours for _, hours in made), tuple(dict.fromkeys(name for name, _ in made)))
        for kind, made in runs.items()
    ]
    return sorted(found, key=lambda each: (-each.runs, each.name))


def agreement(claim: Claim, records: Mapping[str, dict], plan: Experiment | None = None) -> Agreement:
    """Whether the machines agree about a claim, from the pairs that one kind of machine has made both runs of.

    Args:
        claim: one that averages over no axis.
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        plan: the experiment, as in :func:`bisam.evidence.selection.entries`.

    Raises:
        ValueError: a claim that averages over an axis.

    Source:
        Welch (1951), computed by SciPy.

    Example:
        >>> from bisam.evidence.listing import claims
        >>> claim = claims("first_run")[0]
        >>> [part.pairs for part in agreement(claim, ledger.evidence("first_run")).parts]
        [10]
    """
    if _checks.part("claim", claim, Claim, "a Claim").over:
        raise ValueError(f"claim must average over no axis, {claim.id} averages over {', '.join(claim.over)}")
    ours, theirs = (entries(dict(records), *side, plan) for side in ((claim.ours, claim.place), (claim.theirs, claim.other_place)))
    differences: dict[str, list[float]] = {}
    for seed in sorted(set(ours) & set(theirs)):
        if (kind := machine(ours[seed])) == machine(theirs[seed]):
            differences.setdefault(kind, []).append(ours[seed]["final"][claim.metric] - theirs[seed]["final"][claim.metric])
    enough = {kind: each for kind, each in sorted(differences.items()) if len(each) >= FEWEST}
    return Agreement(tuple(_part(kind, each) for kind, each in enough.items()), _one_difference(list(enough.values())))


def _part(kind: str, differences: list[float]) -> Part:
    return Part(kind, len(differences), statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5)


def _one_difference(groups: list[list[float]]) -> float | None:
    from scipy import stats

    if len(groups) < 2 or any(len(set(group)) == 1 for group in groups):
        return None
    return float(stats.f_oneway(*groups, equal_var=False).pvalue)


# -- another's records ------------------------------------------------------------------------------------------------


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
