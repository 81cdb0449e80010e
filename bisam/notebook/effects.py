r"""Published and recorded numbers side by side: cells of tables, and differences with intervals.

A cell is :math:`\bar x \pm s` over :math:`n` runs, and its interval :math:`\bar x \pm t_{n-1,\,0.975}\, s / \sqrt n`. Of a
published difference only Welch's interval can be had (:func:`bisam.evidence.summaries.welch`), of ours the paired one
(:func:`bisam.evidence.statistics.paired`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .. import _checks
from ..evidence.crossed import ALPHA
from ..evidence.decisions import Decision
from ..evidence.published import PUBLISHED_AS, published
from ..evidence.selection import series
from ..evidence.statistics import Paired
from ..evidence.summaries import Unpaired, welch

__all__ = ["Cell", "Effect", "effect", "published_cell", "published_gap", "recorded_cell"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table: mean, standard deviation over runs, and their number; what is not printed is ``None``.

    Example:
        >>> print(Cell(94.09, 0.26, 6))
        94.09 ± 0.26
        >>> [round(end, 2) for end in Cell(94.09, 0.26, 6).interval]
        [93.82, 94.36]
    """

    mean: float
    std: float | None = None
    runs: int | None = None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; ``None`` with fewer than two runs, or where the spread is not known."""
        if self.std is None or self.runs is None or self.runs < 2:
            return None
        stats = _checks.needs("scipy.stats", extra="train")
        reach = float(stats.t.ppf(1 - ALPHA / 2, self.runs - 1)) * self.std / math.sqrt(self.runs)
        return self.mean - reach, self.mean + reach


def published_cell(method: str, **columns: str) -> Cell | None:
    """A method's number in a published table; ``None`` if the table leaves it out.

    Args:
        method: name of a recipe.
        columns: column of ``results/published.csv`` to value; with the method they must single out one row.

    Raises:
        ValueError: several rows, or a column that the table does not have.

    Source:
        The table names the source of each row.

    Example:
        >>> print(published_cell("bisam-log", table="T1", model="Resnet-56"))
        94.28 ± 0.31
        >>> published_cell("esam", table="T1", model="Resnet-56")
    """
    name = PUBLISHED_AS.get(method, method)
    rows = [row for row in published(**columns) if row["method"] == name]
    if len(rows) > 1:
        raise ValueError(f"columns must single out one row, {columns} has {len(rows)} for {method}")
    if not rows or rows[0]["mean"] == "":
        return None
    row = rows[0]
    return Cell(row["mean"], *(row[key] if row[key] != "" else None for key in ("std", "n_runs")))


def recorded_cell(records: Mapping[str, dict], method: str, metric: str, place: dict | None = None) -> Cell | None:
    """Mean and spread of a method's records at a place of the grid; ``None`` if there are none.

    Args:
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        method: name of a recipe or control.
        metric: of the final numbers of a run.
        place: field of the run to its value.

    Example:
        >>> from bisam.evidence import ledger
        >>> recorded_cell(ledger.evidence("first_run_second"), "sam", "last_test_accuracy", {"label_noise": 0.4}).runs
        10
    """
    numbers = list(series(dict(records), method, metric, place).values())
    if not numbers:
        return None
    return Cell(statistics.mean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


@dataclass(frozen=True)
class Effect:
    """One comparison: a name, the look of the method on trial, the published difference, ours, and what was decided.

    Args:
        label: a few words.
        method: on trial; it gives the colour.
        published: by Welch's test; ``None`` where nothing is published, or a mean without a spread.
        ours: over paired seeds; ``None`` without records.
        verdict: of the claim that ours decides.

    Example:
        >>> Effect("40 %", "sam", None, None, "not attempted").verdict
        'not attempted'
    """

    label: str
    method: str
    published: Unpaired | None
    ours: Paired | None
    verdict: str


def published_gap(ours: str, theirs: str, **columns: str) -> Unpaired | None:
    """The published difference of two methods with Welch's interval; ``None`` without two cells that have spreads.

    Args:
        ours: a method.
        theirs: another.
        columns: as in :func:`published_cell`.

    Source:
        ``results/published.csv``.

    Example:
        >>> gap = published_gap("bisam-log", "sam", table="T1", model="Resnet-56")
        >>> round(gap.difference, 2), round(gap.p, 2)
        (0.19, 0.28)
    """
    cells = [published_cell(method, **columns) for method in (ours, theirs)]
    if any(cell is None or cell.interval is None for cell in cells):
        return None
    return welch(*(part for cell in cells for part in (cell.mean, cell.std, cell.runs)))


def effect(decision: Decision, label: str, **columns: str) -> Effect:
    """A decided claim beside the published difference that it bears upon.

    Args:
        decision: one of :func:`bisam.evidence.decisions.decisions`.
        label: a few words.
        columns: where the published cells stand; those of the claim if left out.

    Example:
        >>> from bisam.evidence.decisions import decide
        >>> from bisam.evidence.listing import claims
        >>> claim = next(claim for claim in claims("T1") if claim.id == "T1/resnet56/bisam-log-over-sam")
        >>> round(effect(decide(claim), "ResNet-56").published.difference, 2)
        0.19
    """
    claim = decision.claim
    columns = columns or claim.published
    published = published_gap(claim.ours, claim.theirs, **columns) if columns else None
    return Effect(label, claim.ours, published, decision.result, decision.verdict)
