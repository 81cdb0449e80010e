"""Every claim decided from the records, by the rule it is judged by now and by the one before."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from ..training import scores
from . import ledger
from .claim import Claim
from .crossed import ALPHA, Crossed, crossed
from .earlier_rule import earlier_verdict
from .experiment import EQUAL_EPOCHS, Experiment
from .listing import claims, experiments
from .places import RESULTS
from .published import published_difference
from .record import bits
from .selection import entries
from .statistics import Paired, paired, within_family
from .verdicts import FEWEST, NOT_IN_FAMILY, Fit, direction, verdict

__all__ = ["Decision", "decide", "decisions"]

OTHER = {
    **{f"selected_test_{metric}": ("last epoch", f"last_test_{metric}") for metric in scores.METRICS},
    **{f"last_test_{metric}": ("chosen epoch", f"selected_test_{metric}") for metric in scores.METRICS},
}
BITS = {"selected_test_accuracy": "selected", "last_test_accuracy": "last"}


@dataclass(frozen=True)
class Decision:
    """A claim with what the records say about it.

    Args:
        claim: the sentence.
        scale: of the experiment; empty for a claim without one.
        result: ours minus theirs over the seeds that both have; ``None`` with fewer than two.
        published: the published difference; ``None`` for a claim of our own.
        verdict: by rule 2, within the claim's family: of ``bisam.evidence.verdicts.VERDICTS``, ``OWN`` or ``NOT_IN_FAMILY``.
        alone: the verdict by rule 2 of the claim taken alone.
        before: the verdict by the rule of 0.1.0.
        q: within its family; ``None`` for a secondary claim, and for one that is not tested there.
        fit: training accuracies of both methods; ``None`` without records that have them.
        beside: the comparison at the epoch that the claim does not name (``"last epoch"`` or ``"chosen epoch"``) and at the budget of
            SGD that it does not name (``"equal epochs"`` or ``"equal passes"``); ``None`` where no record has it.
        pairs: seeds that both methods have.

    Example:
        >>> decide(claims("first_run")[0]).verdict
        'holds'
    """

    claim: Claim
    scale: str
    result: Paired | None
    published: float | None
    verdict: str
    alone: str = ""
    before: str = ""
    q: float | None = None
    fit: Fit | None = None
    beside: dict[str, Paired | None] = field(default_factory=dict)
    pairs: int = 0

    @property
    def marks(self) -> tuple[str, ...]:
        """What a reader should know of the comparison, such as few pairs, or seeds only."""
        if self.result is None:
            return ()
        told = {
            "few pairs": self.result.pairs < FEWEST[2],
            f"{self.result.pairs} of {self.claim.pairs} pairs so far": self.result.pairs < self.claim.pairs,
            "seeds only": self.result.images is None and self.claim.metric in BITS,
            "secondary": not self.claim.family, "fit unknown": self.fit is None and self.claim.needed > 0,
        }  # fmt: skip
        return tuple(mark for mark, true in told.items() if true)


def decide(claim: Claim, folder: Path = RESULTS) -> Decision:
    """What the records say about a claim now.

    Args:
        claim: one of :func:`bisam.evidence.listing.claims`, or another; it is judged with the claims of its family.
        folder: the ledger.

    Example:
        >>> decision = decide(claims("first_run")[0])
        >>> decision.result.pairs, decision.published
        (10, None)
    """
    return _decided([_checks.part("claim", claim, Claim, "a Claim")], folder)[0]


def decisions(name: str | None = None, folder: Path = RESULTS) -> list[Decision]:
    """All claims, or those of one experiment, each decided.

    Args:
        name: of the experiment.
        folder: the ledger.

    Example:
        >>> sorted({decision.verdict for decision in decisions("first_run")})
        ['holds', 'not resolved']
    """
    return _decided(claims(name, folder), folder)


def _decided(wanted: Sequence[Claim], folder: Path) -> list[Decision]:
    """The wanted claims; those of their families are decided too, since q is a matter of all of them."""
    plans, records = experiments(folder), functools.cache(lambda name: ledger.evidence(name, folder) if name else {})
    for claim in wanted:
        _checks.choice(f"experiment of claim {claim.id}", claim.experiment, ("", *plans))
    ids, families = {claim.id for claim in wanted}, {claim.family for claim in wanted} - {""}
    others = [claim for claim in claims(None, folder) if claim.family in families and claim.id not in ids] if families else []
    found = [_alone(claim, plans.get(claim.experiment), records(claim.experiment)) for claim in (*wanted, *others)]
    return _in_families(found)[: len(wanted)]


def _in_families(found: list[Decision]) -> list[Decision]:
    """Verdicts within the families. Tested there is what is in regime and has its pairs, whatever its p.

    A claim that waits for its planned pairs counts as one in which nothing is found: a family that is half done is no smaller family.
    """
    tested: dict[str, list[int]] = {}
    waiting: Counter[str] = Counter()
    for place, each in enumerate(found):
        enough = each.result is not None and each.result.pairs >= each.claim.fewest
        if each.claim.family and enough and each.alone != "not in regime" and "fit unknown" not in each.marks:
            tested.setdefault(each.claim.family, []).append(place)
        elif each.claim.pairs and not enough:
            waiting[each.claim.family] += 1
    for name, places in tested.items():
        p = [*(found[k].result.largest_p for k in places), *[1.0] * waiting[name]]
        for place, q in zip(places, within_family(p), strict=False):
            each = found[place]
            lost = q >= ALPHA and direction(each.result, each.claim.fewest) != 0
            found[place] = dataclasses.replace(each, q=q, verdict=NOT_IN_FAMILY if lost else each.alone)
    return found


def _alone(claim: Claim, plan: Experiment | None, records: dict[str, dict]) -> Decision:
    published = published_difference(claim)
    effect = None if published is None else published.effect
    if plan is None:
        return Decision(claim, "", None, effect, "not attempted", "not attempted", "not attempted")
    ours, theirs = ([entries(records, name, place, plan) for place in places] for name, places in claim.sides(plan.grid))
    seeds = _both(ours, theirs, claim.metric)
    if len(seeds) < 2:
        word = "not resolved" if seeds else "not attempted"
        return Decision(claim, plan.scale, None, effect, word, word, word, pairs=len(seeds))
    result, fit = _compared(ours, theirs, claim.metric), _fit(ours, theirs, seeds, claim.needed)
    word = verdict(result, published, claim.fewest, fit if claim.needed else None)
    if fit is None and claim.needed:  # a precondition that no record can show is not met in silence
        word = "not resolved"
    beside = {}
    if claim.metric in OTHER:
        label, metric = OTHER[claim.metric]
        beside[label] = _compared(ours, theirs, metric)
    beside |= _other_budget(claim, plan, records)
    return Decision(claim, plan.scale, result, effect, word, word, earlier_verdict(result, effect), None, fit, beside, len(seeds))


def _other_budget(claim: Claim, plan: Experiment, records: dict[str, dict]) -> dict[str, Paired | None]:
    """The same comparison with SGD at the other budget: at equal epochs if the claim has it at equal passes, and the reverse."""
    partner = {"sgd": EQUAL_EPOCHS, EQUAL_EPOCHS: "sgd"}
    if plan.budget == "same" or (claim.ours in partner) == (claim.theirs in partner):
        return {}
    label = "equal epochs" if "sgd" in (claim.ours, claim.theirs) else "equal passes"
    sides = ((partner.get(name, name), places) for name, places in claim.sides(plan.grid))
    ours, theirs = ([entries(records, name, place, plan) for place in places] for name, places in sides)
    return {label: _compared(ours, theirs, claim.metric)}


# -- the records of a comparison --------------------------------------------------------------------------------------

# One side of a comparison is a list: for each value of the axes that a claim averages over, its records by seed.
Side = list[dict[int, dict]]


def _numbers(side: Side, metric: str) -> dict[int, float]:
    """The mean over the parts by seed, for the seeds that every part has; the earliest records count fewer things."""
    seeds = [seed for seed in side[0] if all(metric in part.get(seed, {"final": ()})["final"] for part in side)]
    return {seed: sum(part[seed]["final"][metric] for part in side) / len(side) for seed in seeds}


def _both(ours: Side, theirs: Side, metric: str) -> list[int]:
    there = _numbers(theirs, metric)
    return [seed for seed in _numbers(ours, metric) if seed in there]


def _compared(ours: Side, theirs: Side, metric: str) -> Paired | None:
    mine, other, seeds = _numbers(ours, metric), _numbers(theirs, metric), _both(ours, theirs, metric)
    if len(seeds) < 2:
        return None
    images = _images(ours, theirs, seeds, BITS[metric]) if metric in BITS else None
    return paired([mine[seed] for seed in seeds], [other[seed] for seed in seeds], images)


def _images(ours: Side, theirs: Side, seeds: list[int], which: str) -> Crossed | None:
    """The comparison over seeds and images, where all records say which of the same images are right."""
    involved = [part[seed] for part in (*ours, *theirs) for seed in seeds]
    if not all("right" in entry for entry in involved) or len({entry["data_fingerprint"] for entry in involved}) > 1:
        return None
    numpy = _checks.needs("numpy", extra="train")
    sides = [[[bits(part[seed], which) for seed in seeds] for part in side] for side in (ours, theirs)]
    if len({len(bits) for side in sides for part in side for bits in part}) > 1:
        return None
    return crossed(*(numpy.mean(side, axis=0) for side in sides))


def _fit(ours: Side, theirs: Side, seeds: list[int], needed: float) -> Fit | None:
    """Training accuracies at the end, means over seeds and parts; older records have those of their last epoch, while training."""
    found = []
    for side in (ours, theirs):
        involved = [part[seed] for part in side for seed in seeds]
        fitted = [entry["final"].get("train_accuracy", entry["curve"].get("train_accuracy", [None])[-1]) for entry in involved]
        if None in fitted:
            return None
        gaps = [entry["final"].get("gap", own - entry["final"]["last_test_accuracy"]) for entry, own in zip(involved, fitted, strict=True)]
        clean = [100 * (1 - _wrong_share(entry["run"])) for entry in involved]
        found.append([statistics.fmean(numbers) for numbers in (fitted, clean, gaps)])
    (mine, clean, gap), (other, other_clean, other_gap) = found
    return Fit(mine, other, needed, clean, other_clean, gap, other_gap)


def _wrong_share(run: dict) -> float:
    """The share of wrong labels: where a label is redrawn among all classes, the true one may come again."""
    if run["noise_reading"] == "other" or ":" in run["data"]:
        return run["label_noise"]
    classes = 100 if run["data"] == "cifar100" else 10
    return run["label_noise"] * (classes - 1) / classes
