"""The state of every claim, computed from the records: what was found, against what was published, and the verdict."""

from __future__ import annotations

import csv
import functools
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _checks, ledger
from .experiments import RESULTS, Claim, Experiment
from .statistics import Paired, paired, verdict

__all__ = ["FORMATS", "PUBLISHED_AS", "Decision", "decide", "decisions", "markdown", "published", "published_effect", "series", "write"]

# What the published tables call the methods.
PUBLISHED_AS = {
    "sgd": "SGD", "sam": "SAM", "bisam-log": "BiSAM (-log)", "bisam-tanh": "BiSAM (tanh)", "asam-all": "ASAM",
    "a-bisam-log": "A-BiSAM (-log)", "a-bisam-tanh": "A-BiSAM (tanh)", "esam": "ESAM", "e-bisam-log": "E-BiSAM (-log)",
    "e-bisam-tanh": "E-BiSAM (tanh)",
}  # fmt: skip
OWN = {"better": "holds", "worse": "refuted", "not resolved": "not resolved"}
FORMATS = (".md", ".json", ".csv")


@dataclass(frozen=True)
class Decision:
    """A claim with what the records say about it.

    Args:
        claim: the sentence.
        scale: of the experiment; empty for a claim without one.
        result: ours minus theirs over the seeds that both have; ``None`` with fewer than two.
        published: the published difference; ``None`` for a claim of our own.
        verdict: one of ``bisam.statistics.VERDICTS`` for a published claim; for our own ``"holds"``, ``"refuted"``,
            ``"not resolved"`` or ``"not attempted"``.

    Source:
        Ours.

    Example:
        >>> decide(ledger.claims("first_run")[0]).verdict
        'holds'
    """

    claim: Claim
    scale: str
    result: Paired | None
    published: float | None
    verdict: str


def published(**columns: str) -> list[dict]:
    """The rows of ``results/published.csv`` that have these values; means, deviations and numbers of runs as numbers.

    Args:
        columns: column to value, such as ``table="T1", model="Average"``.

    Raises:
        ValueError: a column that the table does not have.

    Source:
        The table names the source of each row.

    Example:
        >>> [row["mean"] for row in published(table="T1", model="Resnet-56", method="SAM")]
        [94.09]
    """
    with open(RESULTS / "published.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in columns:
        _checks.choice("column", name, tuple(rows[0]))
        _checks.text(name, columns[name])
    chosen = [row for row in rows if all(row[name] == value for name, value in columns.items())]
    kinds = {"mean": float, "std": float, "n_runs": int}
    return [{name: kinds[name](value) if name in kinds and value else value for name, value in row.items()} for row in chosen]


def published_effect(claim: Claim) -> float | None:
    """The published mean of ours minus that of theirs, in the units of the table; ``None`` for a claim of our own.

    Args:
        claim: its ``published`` columns must single out one row for each of the two methods.

    Raises:
        LedgerError: they do not.

    Source:
        ``results/published.csv``.

    Example:
        >>> claim = Claim("c", "first_run", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1", "model": "Resnet-56"})
        >>> round(published_effect(claim), 2)
        0.08
    """
    if not claim.published:
        return None
    means = []
    for method in (claim.ours, claim.theirs):
        rows = published(**claim.published, method=PUBLISHED_AS.get(method, method))
        if len(rows) != 1:
            raise ledger.LedgerError(f"claim {claim.id}: {claim.published} has {len(rows)} published rows for {method}")
        means.append(rows[0]["mean"])
    return means[0] - means[1]


def series(records: dict[str, dict], method: str, metric: str, place: dict | None = None) -> dict[int, float]:
    """One method's numbers by seed, at a place of the grid.

    Args:
        records: what :func:`bisam.ledger.evidence` returned.
        method: name of a recipe or control.
        metric: of the final numbers of a run.
        place: field of the run, ``"rho"``, or the ``"rate"`` of a learned radius, to its value.

    Source:
        Ours.

    Example:
        >>> found = series(ledger.evidence("first_run"), "sam", "last_test_accuracy", {"label_noise": 0.4})
        >>> len(found), found[0] > 80
        (10, True)
    """
    found = {}
    for entry in records.values():
        run = entry["run"]
        at = {**run, **{name: run["recipe"]["radius"].get(name) for name in ("rho", "rate")}}
        fits = run["recipe"]["name"] == method and all(at.get(name) == value for name, value in (place or {}).items())
        if fits and metric in entry["final"]:  # the earliest records count fewer things
            found[run["seed"]] = entry["final"][metric]
    return dict(sorted(found.items()))


def decide(claim: Claim, folder: Path = RESULTS) -> Decision:
    """What the records say about a claim now.

    Args:
        claim: one of :func:`bisam.experiments.claims`.
        folder: the ledger.

    Source:
        Ours: the rules are those of :mod:`bisam.statistics`.

    Example:
        >>> decision = decide(ledger.claims("first_run")[0])
        >>> decision.result.pairs, decision.published
        (10, None)
    """
    plan = ledger.experiment(claim.experiment, folder) if claim.experiment else None
    return _decide(claim, plan, ledger.evidence(plan.name, folder) if plan else {})


def _decide(claim: Claim, plan: Experiment | None, records: dict[str, dict]) -> Decision:
    effect = published_effect(claim)
    if plan is None:
        return Decision(claim, "", None, effect, "not attempted")
    ours = _averaged(records, claim.ours, claim, claim.place, plan)
    theirs = _averaged(records, claim.theirs, claim, claim.other_place, plan)
    seeds = [seed for seed in ours if seed in theirs]
    if len(seeds) < 2:
        return Decision(claim, plan.scale, None, effect, "not attempted" if not seeds else "not resolved")
    result = paired([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    # A published difference of nothing has no direction to reproduce: what counts is whether ours shows one.
    return Decision(claim, plan.scale, result, effect, verdict(result, effect) if effect else OWN[result.verdict])


def _averaged(records: dict[str, dict], method: str, claim: Claim, place: dict, plan: Experiment) -> dict[int, float]:
    """One method's numbers by seed, averaged over the axes that the claim names, for the seeds that are there at every value."""
    for axis in claim.over:
        if axis not in plan.grid:
            raise ledger.LedgerError(f"claim {claim.id}: over names {axis!r}; the grid of {plan.name} has {', '.join(plan.grid) or 'no axis'}")
    values = itertools.product(*(plan.grid[axis] for axis in claim.over))
    parts = [series(records, method, claim.metric, {**place, **dict(zip(claim.over, each, strict=True))}) for each in values]
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in parts[0] if all(seed in part for part in parts)}


def decisions(name: str | None = None, folder: Path = RESULTS) -> list[Decision]:
    """All claims, or those of one experiment, each decided.

    Args:
        name: of the experiment.
        folder: the ledger.

    Source:
        Ours.

    Example:
        >>> sorted({decision.verdict for decision in decisions("first_run")})
        ['holds', 'not resolved']
    """
    known, records = ledger.experiments(folder), functools.cache(lambda name: ledger.evidence(name, folder))
    return [
        _decide(claim, known[claim.experiment], records(claim.experiment)) if claim.experiment else _decide(claim, None, {})
        for claim in ledger.claims(name, folder)
    ]


def _row(decision: Decision) -> dict:
    result, claim = decision.result, decision.claim
    numbers = {"pairs": 0} if result is None else {
        "pairs": result.pairs, "difference": round(result.mean, 3), "low": round(result.low, 3), "high": round(result.high, 3),
        "p": round(result.p, 4), "detectable": round(result.detectable, 3),
    }  # fmt: skip
    effect = None if decision.published is None else round(decision.published, 3)
    return {
        "id": claim.id, "statement": claim.statement, "ours": claim.ours, "theirs": claim.theirs, "metric": claim.metric,
        "scale": decision.scale, **{key: None for key in ("difference", "low", "high", "p", "detectable")}, **numbers,
        "published": effect, "verdict": decision.verdict,
    }  # fmt: skip


def markdown(found: Sequence[Decision]) -> str:
    """A table with one line a claim, and a line that counts the verdicts.

    Args:
        found: what :func:`decisions` returned.

    Source:
        Ours.

    Example:
        >>> print(markdown(decisions("first_run")).splitlines()[-1])
        8 claims: 2 holds, 6 not resolved.
    """
    lines = ["| claim | scale | pairs | difference [95 % interval] | p | published | verdict |", "| --- | --- | ---: | --- | ---: | ---: | --- |"]
    for decision in found:
        row, result = _row(decision), decision.result
        gap = "" if result is None else f"{result.mean:+.2f} [{result.low:+.2f}, {result.high:+.2f}]"
        p = "" if result is None else f"{result.p:.3f}"
        effect = "" if decision.published is None else f"{decision.published:+.2f}"
        lines.append(
            f"| `{row['id']}`: {row['statement']} | {row['scale']} | {row['pairs'] or ''} | {gap} | {p} | {effect} | {row['verdict']} |"
        )
    counts = Counter(decision.verdict for decision in found)
    return "\n".join((*lines, "", f"{len(found)} claims: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items())) + "."))


def write(found: Sequence[Decision], path: Path) -> None:
    """Writes the state of the claims, in the format that the file's ending names.

    Args:
        found: what :func:`decisions` returned.
        path: ends in ``.md``, ``.json`` or ``.csv``; replaced.

    Raises:
        ValueError: another ending.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(decisions("first_run"), Path(folder) / "claims.csv")
        ...     print((Path(folder) / "claims.csv").read_text().splitlines()[0][:30])
        id,statement,ours,theirs,metri
    """
    _checks.choice("output", path.suffix, FORMATS)
    rows = [_row(decision) for decision in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".md":
        path.write_text(markdown(found) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
