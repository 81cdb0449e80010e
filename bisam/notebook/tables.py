"""Published and recorded numbers as rows of a table, see :func:`bisam.notebook.results.show`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ..evidence.crossed import ALPHA
from ..evidence.decisions import Decision
from ..evidence.report import p_value, signed
from ..evidence.statistics import Paired
from ..evidence.summaries import Unpaired
from ..evidence.verdicts import direction
from ..training import History
from .effects import Cell, Effect
from .labels import label
from .plots import style_of

__all__ = ["by_chance", "could_find", "effect_rows", "gap", "grid_rows", "joined", "live_rows", "state_rows"]


def grid_rows(rows: Mapping[str, Mapping[str, Cell | str | None]], corner: str) -> list[dict[str, str | None]]:
    """Cells as rows of a table.

    Args:
        rows: name of the row to name of the column to cell; ``None`` where there is nothing.
        corner: the name of the column that names the rows.

    Example:
        >>> grid_rows({"clean": {"SGD": Cell(94.76, 0.14), "SAM": None}}, "labels")
        [{'labels': 'clean', 'SGD': '94.76 ± 0.14', 'SAM': None}]
    """
    return [{corner: name, **{key: None if cell is None else str(cell) for key, cell in row.items()}} for name, row in rows.items()]


def effect_rows(found: Sequence[Effect], ours: str = "ours") -> list[dict[str, object]]:
    """Differences as rows of a table; where nothing is published that column is left out.

    Args:
        found: the comparisons.
        ours: the name of the column with our differences.

    Example:
        >>> from bisam.evidence.summaries import welch
        >>> effect_rows([Effect("ResNet", "sam", welch(94.3, 0.3, 6, 94.1, 0.3, 6), None, "not attempted")])[0]["published"]
        '+0.20 [-0.19, +0.59]'
    """
    some = any(each.published is not None for each in found)
    return [
        {
            "comparison": each.label,
            **({"published": each.published and gap(each.published.difference, each.published)} if some else {}),
            ours: each.ours and gap(each.ours.mean, each.ours),
            "p": each.ours and p_value(each.ours.p),
            "pairs": each.ours and each.ours.pairs,
            "verdict": each.verdict,
        }
        for each in found
    ]


def gap(mean: float, interval: Paired | Unpaired, digits: int = 2) -> str:
    """A difference with the 95 % interval that counts, as text.

    Args:
        mean: of the difference.
        interval: from :func:`bisam.evidence.statistics.paired` or :func:`bisam.evidence.summaries.welch`.
        digits: behind the point.

    Example:
        >>> from bisam.evidence.statistics import paired
        >>> gap(1.25, paired([91.0, 92.0], [90.0, 90.5]))
        '+1.25 [-1.93, +4.43]'
    """
    low, high = ends(interval)
    return f"{signed(mean, digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def ends(interval: Paired | Unpaired) -> tuple[float, float]:
    """The ends of the 95 % interval that counts."""
    return interval.widest if isinstance(interval, Paired) else (interval.low, interval.high)


def state_rows(found: Iterable[Decision], without: Iterable[str] = (), names: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    """Claims as rows of a table: difference, p of the sign flips, q within the family, what would have been found, pairs and verdict.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.
        without: parts of the labels that all rows share and the caption says, see :func:`bisam.notebook.labels.label`.
        names: id of a claim to what to call it, where the label does not tell two rows apart.

    Example:
        >>> from bisam.evidence.decisions import decisions
        >>> row = state_rows(decisions("T1"), without=("data", "epoch"))[0]
        >>> row["claim"], row["verdict"]
        ('SAM over SGD, DenseNet-121', 'not attempted')
    """
    without, rows = tuple(without), []
    for each in found:
        result, early = each.result, ""
        if result is not None and result.pairs < each.claim.pairs:
            early = f", {result.pairs} of {each.claim.pairs} pairs so far"
        rows.append({
            "claim": (names or {}).get(each.claim.id) or label(each.claim, without),
            "difference": result and gap(result.mean, result),
            "p": result and p_value(result.p),
            "q": None if each.q is None else p_value(each.q),
            "could find": result and could_find(result),
            "pairs": result and result.pairs,
            "verdict": each.verdict + early,
        })  # fmt: skip
    return rows


def could_find(result: Paired | None) -> str:
    """The difference in points that so many pairs would find four times out of five, as text; a dash where no difference would be.

    Args:
        result: of :func:`bisam.evidence.statistics.paired`; ``None`` without pairs.

    Example:
        >>> from bisam.evidence.statistics import paired
        >>> could_find(paired([2.0, 3.0], [1.0, 1.0])), could_find(paired(range(2, 14), [0] * 6 + [6] * 6))
        ('-', '1.60')
    """
    return f"{result.detectable:.2f}" if result is not None and math.isfinite(result.detectable) else "-"


def by_chance(found: Iterable[Decision]) -> str:
    """How many claims the records resolve, and how many of so many would be resolved if nothing were to be found.

    A true null is resolved with a probability of at most 5 %. Claims that are not in regime are not judged.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.

    Example:
        >>> by_chance([])
        'no claim has records'
    """
    recorded = [each for each in found if each.result is not None]
    judged = [each for each in recorded if each.verdict != "not in regime"]
    if not judged:
        return "no claim with records is in regime" if recorded else "no claim has records"
    resolved = sum(direction(each.result, each.claim.fewest) != 0 for each in judged)
    return f"{resolved} of {len(judged)} differences resolved; up to {ALPHA * len(judged):.1f} expected by chance if none were real"


def live_rows(histories: Mapping[str, Sequence[History]]) -> list[dict[str, object]]:
    """Runs made a moment ago as rows of a table, means over their seeds. No evidence.

    Args:
        histories: method to what :func:`bisam.training.fit` returned, one a seed.

    Example:
        >>> from bisam.training import Run, fit
        >>> row = live_rows({"sam": [fit(Run(model="mlp", epochs=1))]})[0]
        >>> row["method"], row["epochs"], row["passes"]
        ('SAM', 1, '2.0')
    """
    rows = []
    for method, runs in histories.items():
        first, chosen = runs[0].run, [each.rows[each.selected_epoch - 1] for each in runs]
        numbers = {
            "right on their own labels": [row["train_accuracy"] for row in chosen],
            "validation": [row["validation_accuracy"] for row in chosen],
            "test, chosen epoch": [each.selected_test_accuracy for each in runs],
            "test, last epoch": [each.last_test_accuracy for each in runs],
        }
        means = {name: f"{statistics.mean(values):.1f}" for name, values in numbers.items()}
        rows.append({"method": style_of(method).label, "epochs": first.epochs, "passes": f"{first.epochs * first.recipe.passes:.1f}", **means})
    return rows


def joined(text: str) -> list[str]:
    """Methods that were given as one text with commas.

    Args:
        text: such as ``"sam, bisam-log"``.

    Example:
        >>> joined("sam, bisam-log")
        ['sam', 'bisam-log']
    """
    return [word.strip() for word in text.split(",")]
