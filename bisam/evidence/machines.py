r"""Which machines have made the records, and whether they agree.

Where a claim has pairs from several machines, Welch's analysis of variance asks whether their mean differences :math:`\bar d_k`,
with standard errors :math:`e_k`, differ by more than chance:

.. math:: F \propto \sum_k \frac{(\bar d_k - \bar d)^2}{e_k^2}, \qquad \bar d = \frac{\sum_k \bar d_k / e_k^2}{\sum_k 1 / e_k^2}
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from . import ledger
from .claim import Claim
from .experiment import Experiment
from .listing import experiments
from .places import RESULTS
from .selection import entries

__all__ = ["Agreement", "Machine", "Part", "agreement", "machines"]

FEWEST = 10  # pairs of a machine; with fewer the test finds differences that are none


@dataclass(frozen=True)
class Machine:
    """What one kind of machine, a processor or a GPU, has added: records, hours of training, and to which experiments.

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

    Example:
        >>> Agreement((Part("a processor", 12, 0.3, 0.1),), None).p
    """

    parts: tuple[Part, ...]
    p: float | None


def machine(record: Mapping) -> str:
    """The kind of machine that a record was made on: its GPU, or its processor."""
    there = _checks.part("record", record, Mapping, "a record, as bisam.evidence.ledger.read() returns it")["environment"]
    if "cuda" in there:
        return there["device"]
    return there.get("processor") or there["device"].partition(",")[0] + " (kind not recorded)"


def machines(folder: Path = RESULTS) -> list[Machine]:
    """All kinds of machines that have added to a ledger, those with the most records first.

    Args:
        folder: the ledger.

    Example:
        >>> sum(each.runs for each in machines()) == len(list((RESULTS / "runs").glob("*/*.json")))
        True
    """
    hours: dict[str, list[float]] = {}
    names: dict[str, dict[str, None]] = {}
    for name in experiments(folder):
        for record in ledger.load(name, folder).values():
            hours.setdefault(machine(record), []).append(record["environment"]["wall_seconds"] / 3600)
            names.setdefault(machine(record), {})[name] = None
    found = [Machine(kind, len(each), sum(each), tuple(names[kind])) for kind, each in hours.items()]
    return sorted(found, key=lambda each: (-each.runs, each.name))


def agreement(claim: Claim, records: Mapping[str, dict], plan: Experiment | None = None) -> Agreement:
    """Whether the machines agree about a claim, from the pairs that one kind of machine has made both runs of.

    Args:
        claim: one that averages over no axis; another is a ``ValueError``.
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        plan: the experiment, as in :func:`bisam.evidence.selection.entries`.

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
    parts = (Part(kind, len(each), statistics.mean(each), statistics.stdev(each) / len(each) ** 0.5) for kind, each in enough.items())
    return Agreement(tuple(parts), _one_difference(list(enough.values())))


def _one_difference(groups: list[list[float]]) -> float | None:
    stats = _checks.needs("scipy.stats", extra="train")
    if len(groups) < 2 or any(len(set(group)) == 1 for group in groups):
        return None
    return float(stats.f_oneway(*groups, equal_var=False).pvalue)
